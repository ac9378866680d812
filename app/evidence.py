"""Which sentences of the passages answer the question, and whether that is enough.

Every sentence of the passages found is scored by five things that can be shown to a reader:

* **coverage**: share of the question's words that the sentence holds, names and other words each weighed by rarity
  and then given equal say, so that a sentence about the right person but another matter stays low; a word found only
  in the heading, a neighbouring sentence or as a related word (*wife* for *married*) counts in part;
* **subject**: whether the passage belongs to an article that the question names;
* **type**: whether it holds what such a question wants (a name, a date, a place, a number, a reason);
* **dense**: cosine of the question and the sentence, both through the encoder;
* **rank** of its passage in the search.

The weights were set by hand on questions over the codex; a later issue calibrates them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from app.lexicon import ALTERNATIVES, KIND_LABELS
from app.question import Question, Term
from app.text import Word, stem, stems, words
from corpus.chunk import sentences
from corpus.store import StoredPassage
from corpus.types import FACTS_PATH
from retrieval.search import Hit

COVERAGE, SUBJECT, TYPE, DENSE, RANK = 0.52, 0.12, 0.18, 0.12, 0.06
"""Weights of the five; they sum to one."""

STEEPNESS = 0.6  # of the confidence curve
ENCODED = 24  # sentences that are compared through the encoder: the best by words alone
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
_INSTRUCTION = re.compile(
    r"\b(?:ignore|disregard|forget|override)\b.{0,40}\b(?:instructions?|prompts?|rules?|guidelines|everything|above)\b"
    r"|\bsystem prompt\b|\byou are (?:now|an? (?:ai|assistant|language model|chatbot))\b|\bas an ai\b"
    r"|\b(?:you must|always|please|now) (?:answer|reply|respond|say|output|print|tell the user)\b"
    r"|\bthe (?:user|assistant)\b"
    r"|<\|[^|>]*\|>",
    re.I,
)
_WHO_VERB = re.compile(r"^\W*who\s+(\w+ed|\w+s|[a-z]+)\s+((?:[\w'’-]+\s*)+)", re.I)
_HOW_MANY = re.compile(r"\bhow many\s+([^\W\d_]+)", re.I)
_FACT = re.compile(r"^(?P<title>.+?) — (?P<label>[^:]{1,60}): (?P<values>.+?)\.?$", re.S)


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
    dense: float = 0.0
    score: float = 0.0

    @property
    def passage(self) -> StoredPassage:
        return self.hit.passage

    @property
    def text(self) -> str:
        return self.hit.passage.text[self.start : self.end]

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


def find(question: Question, hits: Sequence[Hit], encoder: SentenceEncoder) -> list[Evidence]:
    """Every usable sentence of the hits, best first.  Equal scores keep the search's order."""
    found: list[Evidence] = []
    for rank, hit in enumerate(hits):
        found += _of_passage(question, hit, rank)
    found.sort(key=lambda e: -_total(e))
    found = _with_dense(question, found[:ENCODED], encoder) + [replace(e, score=_total(e)) for e in found[ENCODED:]]
    return sorted(found, key=lambda e: -e.score)


def _total(e: Evidence) -> float:
    rank = 1 / (1 + e.rank / 3)
    return COVERAGE * e.coverage + SUBJECT * e.subject + TYPE * e.type + DENSE * e.dense + RANK * rank


def _with_dense(question: Question, found: Sequence[Evidence], encoder: SentenceEncoder) -> list[Evidence]:
    if not found:
        return []
    query = encoder.encode_queries([question.text])[0]  # (d,)
    vectors = encoder.encode_passages([(e.passage.title, e.text) for e in found])  # (n, d)
    out = []
    for e, cosine in zip(found, vectors @ query, strict=True):
        with_cosine = replace(e, dense=float(np.clip(cosine, 0.0, 1.0)))
        out.append(replace(with_cosine, score=_total(with_cosine)))
    return out


def _of_passage(question: Question, hit: Hit, rank: int) -> list[Evidence]:
    text = hit.passage.text
    title = stems(hit.passage.title)
    heading = stems(" ".join(hit.passage.path)) - {"fact"}
    spans = [(a, b) for a, b in sentences(text) if not is_instruction(text[a:b])]
    cut = [words(text[a:b]) for a, b in spans]
    held = [{word.stem for word in part} for part in cut]
    subject = 1.0 if hit.passage.page in question.pages else 0.0
    out = []
    for at, (start, end) in enumerate(spans):
        if len(cut[at]) > MAX_WORDS or len(cut[at]) < 2:
            continue
        near = held[at - 1] if at else set()
        fact = fact_line(text[start:end]) if hit.passage.path == FACTS_PATH else None
        coverage, named, matter = _coverage(question, held[at], title, heading, near, hit.passage.page)
        fits = _fact_fit(question, fact) if fact else _type_fit(question, text[start:end], cut[at], title)
        if question.kind == "definition":
            # A portrait is the article's own lead, and in it the earlier sentence says more.
            lead = subject and not hit.passage.path
            fits = max(0.0, 1.0 - 0.1 * at) if lead else 0.3 if subject else 0.0
        out.append(Evidence(hit, rank, start, end, coverage, named, matter, subject, fits))
    return out


def _coverage(
    question: Question, here: set[str], title: set[str], heading: set[str], near: set[str], page: int
) -> tuple[float, float, float]:
    """Coverage of all the question's words, of the names among them, and of the rest."""

    def share(terms: Sequence[Term]) -> float:
        whole = sum(term.weight for term in terms)
        return sum(term.weight * _held(term, here, title, heading, near, page) for term in terms) / whole

    names = [term for term in question.terms if term.is_name]
    rest = [term for term in question.terms if not term.is_name]
    named = share(names) if names else 1.0
    if not rest or question.kind == "definition":
        return (named if names else 0.0), named, 1.0
    matter = share(rest)
    return ((named + matter) / 2 if names else matter), named, matter


def _held(term: Term, here: set[str], title: set[str], heading: set[str], near: set[str], page: int) -> float:
    """How far a sentence speaks of a term, 0–1."""
    if term.stem in here:
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


def _fact_fit(question: Question, fact: FactLine) -> float:
    """As ``_type_fit``, for an infobox row: its label must be what is asked, its value of the right kind."""
    label = stems(fact.label)
    alike = {a for term in question.terms if not term.is_name for a in term.alternatives}
    if label & question.stems:
        fit = 1.0
    elif label & (alike | KIND_LABELS.get(question.kind, frozenset())):
        fit = 0.8
    else:
        return 0.0
    values = [word for word in words(fact.values) if not word.is_stop]
    match question.kind:
        case "person":
            right_kind = fact.values[:1].isupper()
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


def confidence(question: Question, found: Sequence[Evidence]) -> float:
    """How sure we may be that the best sentence answers the question, 0–1.

    A logistic curve over the best sentence's coverage (of everything, and of what is asked about the names), type and
    dense similarity; its weights were set by hand.  A name that no passage of the archive holds pulls it far down,
    whatever the rest says: nobody can answer about it.  Another unknown word halves it.
    """
    if not found or not question.terms:
        return 0.0
    best = found[0]
    z = (
        6.0 * (best.coverage - 0.65)
        + 4.0 * (best.matter - 0.5)
        + 1.5 * (best.type - 0.5)
        + 1.5 * (best.dense - 0.4)
        + 0.5 * best.subject
    )
    if question.kind in ("time", "count", "person") and best.type < 0.5:
        z -= 2.0  # a question for a number or a name is not answered without one
    if best.named < 0.3:
        z -= 3.0  # it speaks of somebody else
    sure = 1 / (1 + math.exp(-STEEPNESS * z))
    for word in question.unknown[:3]:
        sure *= 0.25 if word[0].isupper() else 0.5
    return sure


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
    return fact.values
