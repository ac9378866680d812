"""What a follow-up leaves out: which name of the turns before it is meant, if any.

Every name in the last two turns, and the titles of the articles that the last answer cited, is a candidate beside "none
of them, the turn stands alone".  A conditional logit (McFadden 1974) over things that can be shown to a reader (where
the name stood, whether its pronoun fits, what kind of thing it is) says how likely each is.  It is fitted on the train
conversations, whose turns come with their stand-alone form (``python -m app.learn``).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from app.text import STOPWORDS, words
from retrieval.words import clean

PORTRAIT = 2.0  # logit of what the last turn asked a portrait of, beside the fitted weights, where a pronoun fits it
ANSWER_NAMES = 5  # names of an answer that are candidates: it begins with what was asked for
OLDER_NAMES = 3
UNLISTED_NAMES = 2  # names of an answer that no article bears

_PORTRAIT = re.compile(
    r"^\W*(?:(?:and|so|but|ok)\s+)*(?:(?:who|what)(?:['’]?s|['’]?re| is| are| was| were)|tell me (?:more )?about)\s+"
    r"(?:(?:an?|the)\s+)?(?P<thing>[^?]+?)[\s?.!]*$",
    re.I,
)
_CITATION = re.compile(r"\s*\[\d+\]")
_POINTS = re.compile(
    r"\b(he|him|his|she|her|hers|it|its|they|them|their|theirs|there|then|that|this|those|these|ones?)\b", re.I
)
_PERSONS = {"he": "he", "him": "he", "his": "he", "she": "she", "her": "she", "hers": "she"}
_ASKS_NAME = re.compile(r"^\W*(?:and |so |but )*(?:who|what|which|whose|whom)\b", re.I)
_RELATION = re.compile(r"^\W*(?:and |so |but )*who\b[^?]*?['’]s?\s+[\w-]+\W*$", re.I)
# "Which prison …?" asks for a thing of that sort: what stands beside the word in the answer is the thing.
_ASKS_SORT = re.compile(
    r"\b(?:which|what)\s+([^\W\d_]+)(?:\s+([^\W\d_]+)\s+(?:do|does|did|is|are|was|were|has|have|had|can|could)\b)?",
    re.I,
)
BESIDE = 4  # words between a name and the word for its sort, at most: "a doppler who was called Dudu"
_ASKS_PLACE = re.compile(r"\bwhere\b|\bwhich (?:city|town|place|castle|inn|village|school)\b", re.I)
_ASIDE = re.compile(
    r"\b(?:topic|unrelated|else|different|moving|btw|anyway|switch|by the way|question|off topic)\b", re.I
)


class Turn(NamedTuple):
    """An earlier turn: the stand-alone question, its answer, and the titles of the articles that the answer cited."""

    question: str
    answer: str
    titles: tuple[str, ...] = ()


class Names(Protocol):
    """What this module needs of ``app.known.Known``."""

    def mentions(self, text: str) -> list[tuple[str, frozenset[int]]]: ...
    def pages(self, text: str) -> set[int]: ...
    def kind(self, page: int) -> str: ...
    def pronoun(self, name: str) -> str: ...


@dataclass(slots=True)
class Candidate:
    """A name that may be meant, and where it stood: source → its place there, from 0.

    ``pages`` is empty for a name in capitals that no article bears.
    """

    name: str
    pages: frozenset[int]
    where: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Weights:
    """Fitted weights of ``features`` and of ``none_features``."""

    name: dict[str, float]
    none: dict[str, float]


LEARNT = json.loads(Path(__file__).with_name("learnt.json").read_text(encoding="utf-8"))
WEIGHTS = Weights(LEARNT["carry"], LEARNT["carry_none"])


def proper_names(text: str) -> list[str]:
    """Runs of capitalised words in order: what is a name where no list of names holds it."""
    runs: list[list[tuple[int, int]]] = []
    for word in words(text):
        if not word.is_capital or word.raw.casefold() in STOPWORDS:
            continue
        bare_end = word.end - 2 if word.raw[-2:] in ("'s", "’s") else word.end
        between = text[runs[-1][-1][1] : word.start] if runs else ""
        if runs and re.fullmatch(r"\s+(?:(?:of|the|var|aep|de|von|an) )*", between):
            runs[-1].append((word.start, bare_end))
        else:
            runs.append([(word.start, bare_end)])
    return [text[run[0][0] : run[-1][1]] for run in runs]


def candidates(question: str, history: Sequence[Turn], names: Names) -> list[Candidate]:
    """The names of the last two turns that the question itself does not hold, each once."""
    own = names.pages(question)
    many = re.search(r"\b(?:they|them|their)\b", question, re.I) is not None
    found: list[Candidate] = []

    def add(where: str, place: int, name: str, pages: frozenset[int]) -> Candidate | None:
        if pages & own or (not pages and _holds(question, name)):
            return None
        if many and pages and all(names.kind(page) in ("place", "quest") for page in pages):
            return None  # of a mountain nobody says *they*
        same = (c for c in found if c.pages & pages or (not pages and _holds(c.name, name)))
        candidate = next(same, None)
        if candidate is None:
            found.append(candidate := Candidate(name, pages))
        candidate.where.setdefault(where, place)
        return candidate

    last = history[-1]
    for place, mention in enumerate(names.mentions(last[0])):
        add("question", place, *mention)
    for title in last[2] if len(last) > 2 else ():
        for mention in names.mentions(title)[:1]:
            add("title", 0, *mention)
    answer = clean(_CITATION.sub("", last[1]))
    told = places(names.mentions(answer), answer)
    beside = _beside(answer, _sort_asked(last[0]))
    for place, (at, name, pages) in enumerate(told):
        is_told = beside(at, at + len(name))
        candidate = add("answer", place, name, pages) if place < ANSWER_NAMES or is_told else None
        if candidate and is_told:
            candidate.where.setdefault("beside", place)
    for at, name in _unlisted(answer, told):
        candidate = add("answer", ANSWER_NAMES, name, frozenset())
        if candidate and beside(at, at + len(name)):
            candidate.where.setdefault("beside", ANSWER_NAMES)
    for older in history[-2:-1]:
        for place, mention in enumerate(names.mentions(older[0])):
            add("older question", place, *mention)
        for place, mention in enumerate(names.mentions(_CITATION.sub("", older[1]))[:OLDER_NAMES]):
            add("older answer", place, *mention)
    return found


def _holds(text: str, name: str) -> bool:
    return re.search(rf"\b{re.escape(name)}\b", text, re.I) is not None


def places(mentions: Sequence[tuple[str, frozenset[int]]], text: str) -> list[tuple[int, str, frozenset[int]]]:
    """Where each name of a ``clean`` text begins."""
    out, at = [], 0
    for name, pages in mentions:
        at = text.index(name, at)
        out.append((at, name, pages))
        at += len(name)
    return out


def _unlisted(text: str, listed: Sequence[tuple[int, str, frozenset[int]]]) -> list[tuple[int, str]]:
    """Names in capitals that no article bears; a capital that only begins a sentence is none."""
    out = []
    for name in proper_names(text):
        for match in re.finditer(rf"(?<=[^\W_][ ,;] ){re.escape(name)}\b|(?<=[^\W_] ){re.escape(name)}\b", text):
            if not any(at < match.end() and match.start() < at + len(known) for at, known, _ in listed):
                out.append((match.start(), name))
                break
    return out[:UNLISTED_NAMES]


def _sort_asked(question: str) -> frozenset[str]:
    """Stems of the words for what was asked for: "Which blade oil do I …" → blade, oil; "Which elf shot …" → elf."""
    asked = _ASKS_SORT.search(question)
    found = words(" ".join(part for part in asked.groups() if part)) if asked else []
    return frozenset(word.stem for word in found if not found[0].is_stop)


def _beside(text: str, sort: frozenset[str]) -> Callable[[int, int], bool]:
    """Whether a name at these offsets holds a word for the sort asked for, or stands beside one in its sentence."""
    cut = words(text) if sort else []
    places = [i for i, word in enumerate(cut) if word.stem in sort]

    def is_beside(start: int, end: int) -> bool:
        own = [i for i, word in enumerate(cut) if start <= word.start < end]
        for i in places if own else ():
            first, last = (i, own[0]) if i < own[0] else (own[-1], i)
            between = text[cut[first].end : cut[last].start] if first < last else ""
            if own[0] <= i <= own[-1] or (last - first <= BESIDE and not re.search(r"[.;:!?]", between)):
                return True
        return False

    return is_beside


def features(c: Candidate, question: str, history: Sequence[Turn], names: Names) -> dict[str, float]:
    """What speaks for a name."""
    said = [match[0].casefold() for match in _POINTS.finditer(question)]
    person = next((_PERSONS[word] for word in said if word in _PERSONS), "")
    is_it, is_they, is_there = (
        "it" in said or "its" in said,
        bool({"they", "them", "their"} & set(said)),
        "there" in said,
    )
    own = bool(names.pages(question))
    asked = history[-1][0]
    last = len(names.mentions(asked)) - 1
    in_question, in_answer, in_title = "question" in c.where, "answer" in c.where, "title" in c.where
    kinds = {names.kind(page) for page in c.pages}
    is_person, is_place = bool(kinds & {"character", ""}), "place" in kinds
    fits = bool(person) and is_person and names.pronoun(c.name) == person
    told = in_answer and not in_question and _ASKS_NAME.search(asked) is not None
    values = {
        "question": in_question,
        "question_first": c.where.get("question") == 0,
        "question_last": c.where.get("question") == last,
        "title": in_title,
        "answer": in_answer,
        "answer_first": c.where.get("answer") == 0,
        "older_question": "older question" in c.where,
        "older_answer": "older answer" in c.where,
        "question_and_answer": in_question and in_answer,
        "question_and_title": in_question and in_title,
        "told": told,
        "told_first": told and c.where.get("answer") == 0,
        # "Who is Ciri's grandmother?"  "Calanthe [1]."
        "told_alone": told and history[-1][1].casefold().startswith(c.name.casefold()),
        "told_relation": told and c.where.get("answer") == 0 and _RELATION.search(asked) is not None,
        "told_sort": "beside" in c.where and not in_question,
        "told_place": in_answer and is_place and _ASKS_PLACE.search(asked) is not None,
        "pronoun_fits": fits,
        "pronoun_differs": bool(person) and not fits,
        "person_unasked": not person and "character" in kinds,
        "it_person": is_it and "character" in kinds,
        "it_thing": is_it and "character" not in kinds,
        "they_group": is_they and bool(kinds & {"faction", "creature"}),
        "there_place": is_there and is_place,
        "there_other": is_there and not is_place,
        "unlisted": not c.pages,
        "work": "work" in kinds,
        "quest": "quest" in kinds,
        "character": "character" in kinds,
        "place": is_place,
        "everywhere": "geralt" in c.name.casefold(),  # named in passing more than anybody else
        "question_no_pronoun": in_question and not said,
        "told_pronoun": in_answer and not in_question and bool(said),
        "question_own": in_question and own,
        "title_own": in_title and own,
    }
    return {name: float(value) for name, value in values.items()}


def none_features(question: str, names: Names) -> dict[str, float]:
    """What speaks for a turn that stands alone."""
    said = [match[0].casefold() for match in _POINTS.finditer(question)]
    own, length = bool(names.pages(question)), len(words(question))
    values = {
        "constant": True,
        "own": own,
        "points": bool(said),
        "own_no_pronoun": own and not said,
        "long": length > 6,
        "longer": length > 9,
        "aside": _ASIDE.search(question) is not None,
        "person": any(word in _PERSONS for word in said),
        "it": "it" in said or "its" in said,
        "bare": length < 4,
    }
    return {name: float(value) for name, value in values.items()}


def likely(question: str, history: Sequence[Turn], names: Names, weights: Weights = WEIGHTS) -> list[tuple[str, float]]:
    """Names that a turn may leave out and their probabilities, best first; "" stands for none."""
    found = candidates(question, history, names)
    scores = [score(weights.none, none_features(question, names))]
    portrait = _PORTRAIT.match(history[-1][0])
    alone = [name for name, _ in names.mentions(portrait["thing"])] if portrait else []
    is_portrait = portrait is not None and [name.casefold() for name in alone] == [portrait["thing"].casefold()]
    for c in found:
        values = features(c, question, history, names)
        # "What is gwent?  Who invented it?": a portrait names much besides, and is about one thing.
        about = is_portrait and "question" in c.where and _POINTS.search(question) and not values["pronoun_differs"]
        scores.append(score(weights.name, values) + PORTRAIT * bool(about))
    top = max(scores)
    odds = [math.exp(score - top) for score in scores]
    shares = [value / sum(odds) for value in odds]
    return sorted(zip(["", *(c.name for c in found)], shares, strict=True), key=lambda pair: -pair[1])


def score(weights: dict[str, float], values: dict[str, float]) -> float:
    """Weights times features."""
    return sum(weights.get(name, 0.0) * value for name, value in values.items())
