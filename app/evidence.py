"""Which sentences of the passages answer the question, and whether that is enough.

Every sentence of the passages found is measured by things that can be shown to a reader:

* **coverage**: share of the question's words that the sentence holds, names and other words each weighed by rarity
  and then given equal say, so that a sentence about the right person but another matter stays low; a word found only
  in the heading, a neighbouring sentence or as a related word (*wife* for *married*) counts in part; **named** and
  **matter** are the two halves;
* **least**: where the question names several things, the one that the sentence speaks of least;
* **subject**: whether the passage belongs to an article that the question names;
* **type**: whether it holds what such a question wants (a name, a date, a place, a number, a reason);
* **dense**: cosine of the question and the sentence, both through the encoder;
* **second**: the score of the second stage, which has read question and passage together;
* **telling**: whether its passage belongs to the telling that the question names (books, games, series), or to another;
* **rank** of its passage in the search, and whether it is a row of an infobox.

How much each counts is fitted on the dev questions (``python -m app.calibrate`` writes ``app/calibration.json``): a
softmax over all sentences and "none of them", so that the best sentence's share is a probability; a logistic curve on
top of that gives the confidence (Platt 1999).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np

from app.lexicon import ALTERNATIVES, INVERSE, KIND_LABELS, SLAYING
from app.question import Question, Term
from app.text import Word, stem, stems, words
from corpus.chunk import sentences
from corpus.store import StoredPassage
from corpus.types import FACTS_PATH
from retrieval.search import Hit

ENCODED = 300  # sentences that are compared through the encoder: the best by words alone, and mostly all of them
UNKNOWN_NAME = 0.25  # factor on the confidence
UNTYPED = 0.3  # likewise, where a number is asked for and there is none
UNNAMED = 0.5  # likewise, where somebody's cat is asked for and there is no cat, or an actor without the part
OWN_ROW = 3.0  # logit of the second stage that a row about a death or an event has at least, if just that is asked
TOLD = -1.0  # logit of a sentence that an earlier turn was answered with, beside what else speaks for it
PORTRAIT = 0.9  # confidence in a portrait of something that has an article of its own
HEADED = 0.7  # least confidence where a section says by its heading that it tells how
MAX_WORDS = 60  # a longer sentence is a list or a quotation gone wrong and makes a poor answer

_YEAR = re.compile(r"\b\d{3,4}(?:s|th|nd|st|rd)?\b|\b\d{1,2}(?:st|nd|rd|th) century\b")
_MONTH = re.compile(
    r"\b(?:January|February|March|April|May|June|July|August|September|October|November|December|spring|summer|autumn|"
    r"winter|century|Belleteyn|Saovine|Yule|Midinváerne|Lammas|Imbaelk|Birke|Velen|midsummer|equinox|solstice)\b"
)
_SEQUENCE = re.compile(r"\b(?:after|before|during|when|until|while|year|age of|century|at the (?:age|time))\b", re.I)
_WHERE = re.compile(
    r"\b(?:in|at|near|from|to|on|of|into|under|inside|between|beneath|by|outside|around|across)\s+(?:the\s+)?[A-ZÀ-Þ]"
)
_WHERE_WORD = re.compile(
    r"\b(?:north|south|east|west|mountains?|forest|island|village|city|river|swamps?|caves?|castle)\b", re.I
)
_REASON = re.compile(
    r"\b(?:because|since|so that|in order|therefore|due to|as a result|for fear|in revenge|wanted|owing"
    r"|thus|hence|to)\b",
    re.I,
)
_AMOUNT = re.compile(r"\b(?:both|none|no|single|dozens?|hundreds?|thousands?|several|half|twice|pair|once)\b", re.I)
# The world has users, assistants and rules of its own: "the user of the lamp", "the assistant of the physician".
_INSTRUCTION = re.compile(
    r"\b(?:ignore|disregard|forget|override)\b.{0,40}\b(?:instructions?|prompts?|guidelines|above)\b"
    r"|(?:^|[.!?:;,\n])\W{0,9}(?:(?:please|now|and|then|just|you (?:must|should))\s+)*"
    r"(?:ignore|disregard|forget|override)\b.{0,40}\b(?:rules?|everything)\b"
    r"|\bsystem prompt\b|\byou are (?:now|an? (?:ai|assistant|language model|chatbot))\b|\bas an ai\b"
    r"|\b(?:you must|always|please|now) (?:answer|reply|respond|say|output|print)\b"
    r"|\b(?:tell|inform|remind|convince) the user\b|\b(?:say|answer|reply|respond|write|print)\b.{0,60}\bto the user\b"
    r"|\bthe assistant (?:must|should)\b|(?:^|[.!?\n])\W{0,9}(?:user|assistant):"
    r"|<\|[^|>]*\|>",
    re.I,
)
_WHOSE_CHILD = re.compile(
    r"\bwhose\b|\b(?:(?:grand)?(?:son|daughter|child)|kid|mother|father|parent)\s+(?:of|to)\W*$", re.I
)
# Asks how somebody's life ended: that has a row of its own in the infobox.
_DEATH = re.compile(
    r"^\W*(?:who (?:has |had )?(?:kill(?:ed|s)|murder(?:ed|s)|slew|assassinate[ds]|behead(?:ed|s))\b"
    r"|who(?:['’]?s| is| was)\b.*\b(?:killer|murderer|slayer)\b"
    r"|(?:how|where) (?:did|does|do)\b.*\bdie\b|(?:how|where|by whom) (?:was|is)\b.*\b(?:kill|murder|assassinat)ed\b)",
    re.I,
)
_PLAYS = re.compile(
    r"^\W*(?:who|(?:which|what) (?:actor|actress)\w*)\b.*?\b(?:play|voice|portray|act)(?:s|ed|ing)?\b", re.I
)
_PLAYING = frozenset(map(stem, ("play", "voice", "portray", "act")))
_DIED = re.compile(r"^died\b(?! there)", re.I)
# "What happened to Milva?": how it ended.  "What happened in Rinde?": the event that the place's infobox names.
_HAPPENED_TO = re.compile(
    r"^\W*what(?:['’]?s| has| had| is| was)? (?:ever )?(?:happen(?:ed|s)? to|became of|become of)\b", re.I
)
_HAPPENED_AT = re.compile(r"^\W*what (?:has |had )?happen(?:ed|s)? (?:at|in|on|near)\b", re.I)
_EVENT = re.compile(r"^events?\b", re.I)
_AND_NO_MORE = frozenset(map(stem, ("happen", "happened", "become", "became", "end", "eventually", "finally", "fate")))
# Asks how to overcome something, in any of the words that a heading may have for it.
_TO_FIGHT = re.compile(
    r"\bhow (?:to|(?:do|can|could|should|would|must) (?:i|you|we|one|geralt|(?:a )?witchers?|people) )"
    r"\s*(?:best )?(?:kill|slay|fight|defeat|beat|destroy|deal with|take on|hunt)\b",
    re.I,
)
_FIGHTING = SLAYING | frozenset(
    map(stem, ("fight", "fighting", "defeat", "beat", "destroy", "deal", "hunt", "combat", "tactics"))
)
_WHO_VERB = re.compile(r"^\W*who\s+(\w+ed|\w+s|[a-z]+)\s+((?:[\w'’-]+\s*)+)", re.I)
_YEAR_ASKED = re.compile(r"\b(?:what|which) (?:year|date)\b|\b(?:year|date) of\b", re.I)
_NUMBER_ASKED = re.compile(r"\bhow (?:many|tall)\b|\bnumber of\b", re.I)
_DIGIT = re.compile(r"\d")
_HOW_MANY = re.compile(r"\bhow many\s+([^\W\d_]+)", re.I)
_NOTE = re.compile(r"\(([^()]*)\)")
_FACT = re.compile(r"^(?P<title>.+?) — (?P<label>[^:]{1,60}): (?P<values>.+?)\.?$", re.S)


@dataclass(frozen=True)
class Calibration:
    """Fitted weights by feature: see ``features``, ``silence_features`` and ``confidence_features``."""

    sentence: dict[str, float]
    silence: dict[str, float]
    confidence: dict[str, float]

    @classmethod
    def load(cls, path: Path) -> Calibration:
        values = json.loads(path.read_text(encoding="utf-8"))
        return cls(values["sentence"], values["silence"], values["confidence"])


CALIBRATION = Calibration.load(Path(__file__).with_name("calibration.json"))


class SentenceEncoder(Protocol):
    """What this module needs of ``encoder.Encoder``."""

    def encode_queries(self, queries: Sequence[str]) -> np.ndarray: ...
    def encode_passages(self, passages: Sequence[tuple[str, str]]) -> np.ndarray: ...


@dataclass(frozen=True, slots=True)
class Evidence:
    """One sentence of a passage, ``passage.text[start:end]``, and how well it answers (0–1 each)."""

    hit: Hit
    rank: int  # of the passage in the search, from 0
    start: int
    end: int
    coverage: float
    named: float  # coverage of the names alone; 1 when there are none
    matter: float  # coverage of the words that are no names: what is asked about them; 1 when there are none
    subject: float
    type: float
    least: float = 1.0  # coverage of the named thing that it speaks of least
    telling: float = 0.0  # 1 of the telling that is asked for, -1 of another, 0 where either names none
    second: float = 0.0  # logit; 0 where there is no second stage
    dense: float = 0.0
    score: float = 0.0  # logit against "none of them answers"
    share: float = 0.0  # probability that it is this sentence that answers
    told: float = 0.0  # 1 where an earlier turn was answered with it
    headed: bool = False  # asked how, and the heading in the article that is asked about says just that

    @property
    def passage(self) -> StoredPassage:
        return self.hit.passage

    @property
    def text(self) -> str:
        return self.hit.passage.text[self.start : self.end]

    @property
    def is_lead(self) -> bool:
        """Whether it opens an article that the question names."""
        return bool(self.subject) and not self.hit.passage.path

    @property
    def is_fact(self) -> bool:
        return self.hit.passage.path == FACTS_PATH


def is_instruction(sentence: str) -> bool:
    """Whether a sentence speaks to whoever reads it for us instead of telling a story: such text is never evidence."""
    return _INSTRUCTION.search(sentence) is not None


def readable(text: str) -> str:
    """A passage's text as the decoder gets it: without the sentences that try to instruct it."""
    if not _INSTRUCTION.search(text):
        return text
    return " ".join(text[a:b] for a, b in sentences(text) if not is_instruction(text[a:b]))


def find(question: Question, hits: Sequence[Hit], encoder: SentenceEncoder, told: str = "") -> list[Evidence]:
    """Every usable sentence of the hits, best first.  Equal scores keep the search's order.

    ``told``: the answers of the turns before; what stands in them is hardly what is asked now.
    """
    found: list[Evidence] = []
    for rank, hit in enumerate(hits):
        found += _of_passage(question, hit, rank)
    found = [replace(e, told=1.0) if told and e.text in told else e for e in found]
    found.sort(key=lambda e: -logit(e))
    return ranked(question, _with_dense(question, found[:ENCODED], encoder) + found[ENCODED:])


def ranked(question: Question, found: Sequence[Evidence], calibration: Calibration = CALIBRATION) -> list[Evidence]:
    """The sentences with their scores and shares, best first."""
    scores = np.array([logit(e, calibration) for e in found] + [silence(question, calibration)])  # (n + 1,)
    odds = np.exp(scores - scores.max())
    shares = odds / odds.sum()
    out = [replace(e, score=float(s), share=float(p)) for e, s, p in zip(found, scores, shares, strict=False)]
    return sorted(out, key=lambda e: -e.score)


def features(e: Evidence) -> dict[str, float]:
    """What a sentence is ranked by; every feature is of the order of one."""
    return {
        "coverage": e.coverage, "named": e.named, "matter": e.matter, "subject": e.subject, "type": e.type,
        "least": e.least, "dense": e.dense, "telling": e.telling, "rank": 1 / (1 + e.rank / 3),
        "fact": float(e.is_fact), "second": _squash(e.second),
    }  # fmt: skip


def _squash(second: float) -> float:
    return float(np.clip(second, -15.0, 15.0)) / 5


def logit(e: Evidence, calibration: Calibration = CALIBRATION) -> float:
    """How well a sentence answers, as a logit."""
    return sum(calibration.sentence[name] * value for name, value in features(e).items()) + TOLD * e.told


def silence_features(question: Question) -> dict[str, float]:
    """What speaks for silence before any sentence is read: words that no passage of the archive holds."""
    unknown = question.unknown[:3]
    names = sum(word[0].isupper() for word in unknown)
    return {"constant": 1.0, "unknown_names": float(names), "unknown_words": float(len(unknown) - names)}


def silence(question: Question, calibration: Calibration = CALIBRATION) -> float:
    """The logit of "none of them answers"."""
    return sum(calibration.silence[name] * value for name, value in silence_features(question).items())


def _with_dense(question: Question, found: Sequence[Evidence], encoder: SentenceEncoder) -> list[Evidence]:
    if not found:
        return []
    query = encoder.encode_queries([question.text])[0]  # (d,)
    vectors = encoder.encode_passages([(e.passage.title, e.text) for e in found])  # (n, d)
    out = []
    for e, cosine in zip(found, vectors @ query, strict=True):
        out.append(replace(e, dense=float(np.clip(cosine, 0.0, 1.0))))
    return out


def _of_passage(question: Question, hit: Hit, rank: int) -> list[Evidence]:
    text = hit.passage.text
    title = stems(hit.passage.title)
    heading = stems(" ".join(hit.passage.path)) - {"fact"}
    spans = [(a, b) for a, b in sentences(text) if not is_instruction(text[a:b])]
    second = {(a, b): score for a, b, score in hit.sentences}
    cut = [words(text[a:b]) for a, b in spans]
    held = [{word.stem for word in part} for part in cut]
    subject = 1.0 if hit.passage.page in question.pages else 0.0
    headed = bool(subject and hit.passage.path) and _is_headed(question, title, hit.passage.path[-1], hit.passage.page)
    telling = 0.0
    if question.canon and hit.passage.canon:
        telling = 1.0 if hit.passage.canon == question.canon else -1.0
    out = []
    for at, (start, end) in enumerate(spans):
        if len(cut[at]) > MAX_WORDS or len(cut[at]) < 2:
            continue
        near = held[at - 1] if at else set()
        fact = fact_line(text[start:end]) if hit.passage.path == FACTS_PATH else None
        coverage, named, matter, least = _coverage(question, held[at], title, heading, near, hit.passage.page)
        if fact and named == 0:
            continue  # a row about somebody else: Foltest's mother for whoever asks for Letho's
        if fact and question.kind in ("reason", "manner") and stems(fact.values) <= question.stems:
            continue  # "hair: white" does not say why it is white
        if fact:
            fits = _fact_fit(question, fact, own=bool(subject))
        else:
            fits = _type_fit(question, text[start:end], cut[at], title)
        read = second.get((start, end), 0.0)
        if fact and subject and least and _says_all(question, fact, matter):
            # The row says just that, and all of it, in words of which the second stage has read too few.
            fits, read = 1.0, max(read, OWN_ROW)
        if not fact and (_only_repeats(question, cut[at]) or _plays_another(question, cut[at])):
            continue
        if question.kind == "definition":
            # A portrait is the article's own lead, and in it the earlier sentence says more.
            is_lead = subject and not hit.passage.path
            fits = max(0.0, 1.0 - 0.1 * at) if is_lead else 0.3 if subject else 0.0
        out.append(
            Evidence(
                hit,
                rank,
                start,
                end,
                coverage,
                named,
                matter,
                subject,
                fits,
                least,
                telling,
                read,
                headed=headed,
            )
        )
    return out


def _is_headed(question: Question, title: set[str], heading: str, page: int) -> bool:
    """Whether a section of an article says by its heading that it tells how: "How a witcher is made", "Combat".

    What the heading says besides must be the name: "Play and reception" does not say how something is played.
    """
    said = stems(heading)
    asks = {term.stem for term in question.terms if not term.is_name}
    names = [term for term in question.terms if term.is_name]
    if question.kind != "manner" or not all(term.stem in said | title or page in term.pages for term in names):
        return False
    if _TO_FIGHT.search(question.text) and said & _FIGHTING:
        return asks <= _FIGHTING
    more = said - asks - title - {term.stem for term in names}
    return bool(asks) and asks <= said and (heading.casefold().startswith("how ") or not more)


def asks_what_happened(question: Question) -> bool:
    """Whether all that is asked is what happened to something or in a place: "What happened at Thanedd?" """
    if not _HAPPENED_AT.match(question.text) and not _HAPPENED_TO.match(question.text):
        return False
    named = {term.pages for term in question.terms if term.is_name}
    return len(named) == 1 and {term.stem for term in question.terms if not term.is_name} <= _AND_NO_MORE


def _only_repeats(question: Question, cut: Sequence[Word]) -> bool:
    """Whether a sentence says no more than a why or a how already does: "Witchers carry two swords"."""
    said = {word.stem for word in cut if not word.is_stop}
    return question.kind in ("reason", "manner") and said <= question.stems


def _plays_another(question: Question, cut: Sequence[Word]) -> bool:
    """Whether a sentence tells who plays somebody else than the part that is asked for."""
    if not _PLAYS.search(question.text):
        return False
    after = [word for verb, word in pairwise(cut) if verb.stem in _PLAYING]
    return bool(after) and all(word.is_capital and word.stem not in question.stems for word in after)


def _says_all(question: Question, fact: FactLine, matter: float) -> bool:
    """Whether a row says how somebody's life ended, or what happened in a place, and that is all that is asked."""
    if _DIED.match(fact.label) and _DEATH.match(question.text):
        return matter == 1.0
    if not asks_what_happened(question):
        return False
    return bool(_DIED.match(fact.label) if _HAPPENED_TO.match(question.text) else _EVENT.match(fact.label))


def _coverage(
    question: Question, here: set[str], title: set[str], heading: set[str], near: set[str], page: int
) -> tuple[float, float, float, float]:
    """Coverage of all the question's words, of the names among them, of the rest, and of the least covered name."""

    names = [term for term in question.terms if term.is_name]
    rest = [term for term in question.terms if not term.is_name]
    # "How a witcher is made" stands above the sentences that tell just that, and they need not repeat it.
    headed = bool(rest) and all(term.stem in heading for term in rest)

    def share(terms: Sequence[Term]) -> float:
        whole = sum(term.weight for term in terms)
        held = ((term, _held(term, here, title, heading, near, page)) for term in terms)
        return sum(term.weight * (max(how, 0.9) if headed and not term.is_name else how) for term, how in held) / whole

    named = share(names) if names else 1.0
    things: dict[object, list[Term]] = {}
    for term in names:
        things.setdefault(term.pages or term.stem, []).append(term)
    least = min(map(share, things.values())) if len(things) > 1 else 1.0
    if not rest or question.kind == "definition":
        return (named if names else 0.0), named, 1.0, least
    matter = share(rest)
    return ((named + matter) / 2 if names else matter), named, matter, least


def _held(term: Term, here: set[str], title: set[str], heading: set[str], near: set[str], page: int) -> float:
    """How far a sentence speaks of a term, 0–1."""
    if term.stem in here or (term.stem in SLAYING and SLAYING & here):
        return 1.0
    if term.stem in title or page in term.pages:
        return 0.9  # the article is about it, so the sentence may say "he"
    if term.alternatives & here:
        return 0.75
    if term.stem in heading:
        return 0.4
    if term.alternatives & heading:
        return 0.3
    return 0.3 if term.stem in near else 0.0


def _fact_fit(question: Question, fact: FactLine, own: bool) -> float:
    """As ``_type_fit``, for an infobox row: its label must be what is asked, its value of the right kind.

    ``own``: the row stands in the article of somebody who was asked about.  There *mother* does not answer who the
    daughter is; it does answer whose daughter she is herself.
    """
    label = stems(fact.label)
    alike = {a for term in question.terms if not term.is_name for a in term.alternatives}
    whose = _WHOSE_CHILD.search(question.text) is not None
    if not own and not whose and label & question.stems & INVERSE.keys():
        return 0.0  # "Ciri — mother: Pavetta" for whoever asks for Pavetta's mother
    if own and not whose:
        alike -= {a for term in question.terms for a in INVERSE.get(term.stem, ())}
    if label & question.stems:
        fit = 1.0
    elif label & (alike | KIND_LABELS.get(question.kind, frozenset())):
        fit = 0.8
    else:
        return 0.0
    values = [word for word in words(fact.values) if not word.is_stop]
    match question.kind:
        case "person":
            # Also "murdered by Letho"; but "1267, after the Thanedd coup" is nobody.
            right_kind = any(word.is_capital for word in values) and not values[0].is_number
        case "time" | "count":
            right_kind = any(word.is_number for word in values)
        case "place":
            right_kind = not fact.values[:1].isdigit()
        case _:
            right_kind = True
    return fit if right_kind else 0.3


def _type_fit(question: Question, text: str, cut: Sequence[Word], title: set[str]) -> float:
    """1 where the sentence holds the kind of thing asked for and the question does not already have, else 0–0.6."""
    asked = question.stems
    fresh = [word for word in cut if word.stem not in asked and not word.is_stop]
    match question.kind:
        case "person":
            if not any(word.is_capital and (word.start > 0 or word.stem in title) for word in fresh):
                return 0.6 if title - asked and fresh else 0.0
            return 1.0 if _right_way_round(question, cut) else 0.4
        case "time":
            return 1.0 if _YEAR.search(text) or _MONTH.search(text) else 0.4 if _SEQUENCE.search(text) else 0.0
        case "count":
            return _count_fit(question, text, cut)
        case "place":
            return 1.0 if _WHERE.search(text) else 0.6 if _WHERE_WORD.search(text) else 0.0
        case "reason":
            return 1.0 if _REASON.search(text) else 0.3
        case _:
            return min(1.0, len(fresh) / 3)


def _right_way_round(question: Question, cut: Sequence[Word]) -> bool:
    """Whether "who killed X" meets "… killed X" or "X was killed by …", and not "X killed …".

    True for questions that are not of that form, and where the verb is not in the sentence.
    """
    form = _WHO_VERB.search(question.text)
    if form is None:
        return True
    verb, objects = stem(form[1]), {word.stem for word in words(form[2])[:4] if not word.is_stop}
    doing = {verb} | ALTERNATIVES.get(verb, frozenset())
    places = [at for at, word in enumerate(cut) if word.stem in doing]
    if not places or not objects:
        return True
    return any(
        objects & {word.stem for word in cut[at + 1 : at + 3]} or "by" in {word.raw for word in cut[at + 1 : at + 4]}
        for at in places
    )


def _count_fit(question: Question, text: str, cut: Sequence[Word]) -> float:
    """Numbers that are no years, best right before the thing that is counted."""
    numbers = [at for at, word in enumerate(cut) if word.is_number and not _YEAR.fullmatch(word.raw)]
    counted = _HOW_MANY.search(question.text)
    if counted is None:
        return 1.0 if numbers else 0.5 if _AMOUNT.search(text) else 0.0
    thing = stem(counted[1])
    kinds = {thing} | ALTERNATIVES.get(thing, frozenset())
    if any(kinds & {word.stem for word in cut[at + 1 : at + 6]} for at in numbers):
        return 1.0
    return 0.5 if numbers else 0.3 if _AMOUNT.search(text) else 0.0


def confidence_features(
    question: Question, found: Sequence[Evidence], calibration: Calibration = CALIBRATION
) -> dict[str, float]:
    """What the confidence is read off: the best sentence, and how far it stands above the others and above silence."""
    best = found[0]
    none = 1.0 - sum(e.share for e in found)
    # "How many" met by no number, "when" by no time: what was found is about something else.
    untyped = question.kind in ("count", "time") and max(e.type for e in found[:2]) == 0.0
    return {
        "constant": 1.0,
        "margin": best.score - silence(question, calibration),
        "share": best.share,
        "silent": none,
        "coverage": best.coverage,
        "matter": best.matter,
        "named": best.named,
        "least": best.least,
        "type": best.type,
        "untyped": float(untyped),
        "telling": best.telling,
        "dense": best.dense,
        "second": _squash(best.second),
        "unknown_names": float(any(word[0].isupper() for word in question.unknown)),
        "unknown_words": float(any(not word[0].isupper() for word in question.unknown)),
    }


def confidence(question: Question, found: Sequence[Evidence], calibration: Calibration = CALIBRATION) -> float:
    """How sure we may be that the best sentence answers the question, 0–1.

    A name that no passage of the archive holds counts against it beyond what was fitted: the dev questions hold a dozen
    of those, too few to learn from, and nobody can answer about Gandalf.  So does the lack of any number where one is
    asked for, and of a thing that somebody is asked to have.  Whoever asks for a portrait of something that has an
    article gets its lead: there is nothing to weigh, and the dev questions hold but a handful of those.
    """
    if not found or not question.terms:
        return 0.0
    weights = calibration.confidence
    z = sum(weights[name] * value for name, value in confidence_features(question, found, calibration).items())
    sure = 1 / (1 + math.exp(-max(-30.0, min(30.0, z))))
    if question.kind == "definition" and any(e.is_lead for e in found):
        sure = max(sure, PORTRAIT)
    if any(e.headed for e in found):
        sure = max(sure, HEADED)
    if any(word[0].isupper() for word in question.unknown):
        sure *= UNKNOWN_NAME
    # A number is asked for, and neither of the two best sentences holds one.
    if question.kind == "count" and _NUMBER_ASKED.search(question.text):
        numbers = any(e.type for e in found[:2])
    elif question.kind == "time" and _YEAR_ASKED.search(question.text):
        numbers = any(_DIGIT.search(e.text) for e in found[:2])
    else:
        numbers = True
    if question.possession and not any(_speaks_of(question, e) for e in found[:2]):
        sure *= UNNAMED
    # Who plays Letho is not told by who plays Foltest.
    if _PLAYS.search(question.text) and not any(e.least and e.named for e in found[:2]):
        sure *= UNNAMED
    return sure if numbers else sure * UNTYPED


def _speaks_of(question: Question, e: Evidence) -> bool:
    """Whether a sentence names what somebody is asked to have, or a like thing, and that somebody."""
    like = {question.possession} | ALTERNATIVES.get(question.possession, frozenset())
    return e.least > 0 and bool(like & (stems(e.text) | stems(e.passage.title) | stems(" ".join(e.passage.path))))


@dataclass(frozen=True, slots=True)
class FactLine:
    """An infobox row in its parts: ``Ciri — mother: Pavetta.``"""

    title: str
    label: str
    values: str


def fact_line(text: str) -> FactLine | None:
    match = _FACT.match(text)
    return FactLine(match["title"], match["label"], match["values"]) if match else None


def short_answer(question: Question, evidence: Evidence) -> str | None:
    """The value of an infobox row, if the row is just what the question asks for (see ``_fact_fit``).

    A question for a whole portrait or a reason has no short answer, nor has one that already holds the value (yes or
    no?) or asks something else besides.
    """
    fact = fact_line(evidence.text) if evidence.is_fact else None
    if fact is None or question.kind in ("definition", "yesno", "reason", "manner") or not evidence.subject:
        return None
    values = {word.stem for word in words(fact.values) if not word.is_stop}
    if evidence.type < 0.8 or evidence.matter < 0.45 or (values and values <= question.stems):
        return None
    return _asked_of(fact.values, question)


def _asked_of(values: str, question: Question) -> str:
    """Of several values those with the note that is asked for: for a first husband of "A (first), B (second)" A."""
    apart = "; " if ";" in values else ", "
    parts = [part.strip() for part in re.split(rf"{apart.strip()}\s+(?![^()]*\))", values)]
    asked = {word.stem for word in words(question.text) if not word.is_stop}
    notes = [[{word.stem for word in words(note)} for note in _NOTE.findall(part)] for part in parts]
    fits = [max((len(note & asked) for note in each), default=0) for each in notes]
    fitting = [part for part, fit in zip(parts, fits, strict=True) if fit == max(fits)]
    return apart.join(fitting)
