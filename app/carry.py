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
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from app.text import words

ANSWER_NAMES = 5  # names of an answer that are candidates: it begins with what was asked for
OLDER_NAMES = 3

_CITATION = re.compile(r"\s*\[\d+\]")
_POINTS = re.compile(
    r"\b(he|him|his|she|her|hers|it|its|they|them|their|theirs|there|then|that|this|those|these|ones?)\b", re.I
)
_PERSONS = {"he": "he", "him": "he", "his": "he", "she": "she", "her": "she", "hers": "she"}
_ASKS_NAME = re.compile(r"^\W*(?:and |so |but )*(?:who|what|which|whose|whom)\b", re.I)
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
    """A name that may be meant, and where it stood: source → its place there, from 0."""

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


def candidates(question: str, history: Sequence[Turn], names: Names) -> list[Candidate]:
    """The names of the last two turns that the question itself does not hold, each once."""
    own = names.pages(question)
    found: list[Candidate] = []

    def add(where: str, place: int, name: str, pages: frozenset[int]) -> None:
        if pages & own:
            return
        candidate = next((c for c in found if c.pages & pages), None)
        if candidate is None:
            found.append(candidate := Candidate(name, pages))
        candidate.where.setdefault(where, place)

    last = history[-1]
    for place, mention in enumerate(names.mentions(last[0])):
        add("question", place, *mention)
    for title in last[2] if len(last) > 2 else ():
        for mention in names.mentions(title)[:1]:
            add("title", 0, *mention)
    for place, mention in enumerate(names.mentions(_CITATION.sub("", last[1]))[:ANSWER_NAMES]):
        add("answer", place, *mention)
    for older in history[-2:-1]:
        for place, mention in enumerate(names.mentions(older[0])):
            add("older question", place, *mention)
        for place, mention in enumerate(names.mentions(_CITATION.sub("", older[1]))[:OLDER_NAMES]):
            add("older answer", place, *mention)
    return found


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
        "told_place": in_answer and is_place and _ASKS_PLACE.search(asked) is not None,
        "pronoun_fits": fits,
        "pronoun_differs": bool(person) and not fits,
        "person_unasked": not person and "character" in kinds,
        "it_person": is_it and "character" in kinds,
        "it_thing": is_it and "character" not in kinds,
        "they_group": is_they and bool(kinds & {"faction", "creature"}),
        "there_place": is_there and is_place,
        "there_other": is_there and not is_place,
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
    scores += [score(weights.name, features(c, question, history, names)) for c in found]
    top = max(scores)
    odds = [math.exp(score - top) for score in scores]
    shares = [value / sum(odds) for value in odds]
    return sorted(zip(["", *(c.name for c in found)], shares, strict=True), key=lambda pair: -pair[1])


def score(weights: dict[str, float], values: dict[str, float]) -> float:
    """Weights times features."""
    return sum(weights.get(name, 0.0) * value for name, value in values.items())
