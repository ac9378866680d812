"""What another model wrote about a passage: its shape, and whether the passage bears it.

Nothing a model says is taken on trust.  Each item is validated by itself, so that one bad item does not cost the others
of its answer; the first fault found is the reason that a run counts.  What this cannot see is who did what to whom when
all the words are right.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError

from corpus import chunk
from corpus.instruct_rows import COUNTING, STOPWORDS
from corpus.question_format import folded, tidy
from corpus.store import StoredPassage

Task = Literal["pairs", "conversation", "summary"]
TASKS: tuple[Task, ...] = ("pairs", "conversation", "summary")
MOST = 0.8  # share of an answer's content words that the passage must hold
NEAR = 0.5  # … and that its evidence, with the heading and the question, must hold
CLOSE = 0.75  # … and of a summary's sentence that two neighbouring sentences must hold
TURNS = range(2, 5)  # of a conversation

# “The source”, “the author” and “according to the prophecy” are things of this world too, so they are no sign.
_LEANS = re.compile(
    r"\b(?:(?:this|the|that|given|provided|above|following) (?:passage|text|excerpt|article|paragraph|section|"
    r"document|context|content)|the author (?:says|states|writes|mentions|describes)|"
    r"(?:mentioned|described) (?:above|here|in (?:the |this )?(?:passage|text|article)))\b",
    re.I,
)
_DANGLING = re.compile(
    r"(?:(?:and|but|so|then|ok|also)\W+)*(?:(?:who|what|where|when|why|how|which|is|was|are|were|do|does|did|has|have|"
    r"had|can|could|will|would)(?:['’]s)?\s+)*(?:he|she|it|they|him|her|them|his|hers|its|their|this|these|that|those)\b",
    re.I,
)
_MACHINE = re.compile(
    r"<\||\|>|</?(?:passage|think)>|https?://|\b(?:as an ai|language model|"
    r"(?:ignore|disregard) (?:all|any|the|your|previous)|previous instructions|system prompt)\b",
    re.I,
)
_GENDERS = (frozenset(("he", "him", "his", "himself")), frozenset(("she", "her", "hers", "herself")))
_TOKEN = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_FENCE = re.compile(r"```(?:json)?|<think>.*?</think>", re.S)


class Pair(BaseModel):
    """One question with its answer; ``evidence`` is copied from the passage."""

    question: str = Field(min_length=8, max_length=240)
    answer: str = Field(min_length=1, max_length=400)
    evidence: str = Field(min_length=8, max_length=600)


class Turn(Pair):
    """One turn of a conversation; ``standalone`` says the question in full."""

    question: str = Field(min_length=2, max_length=240)
    standalone: str = Field(min_length=8, max_length=240)


class Summary(BaseModel):
    summary: str = Field(min_length=40, max_length=900)


class Fault(ValueError):
    """Why an item is not kept; the message is one of few, so that reasons can be counted."""


_SHAPES: dict[Task, tuple[str, type[BaseModel]]] = {
    "pairs": ("pairs", Pair),
    "conversation": ("turns", Turn),
    "summary": ("summary", Summary),
}


def schema(task: Task, most: int) -> dict[str, Any]:
    """The JSON schema of an answer: plain strings only, no references, which every server understands."""
    if task == "summary":
        wanted: dict[str, Any] = {"type": "string"}
    else:
        fields = list(_SHAPES[task][1].model_fields)
        if "standalone" in fields:  # the order in which a model should think
            fields = ["question", "standalone", "answer", "evidence"]
        item = {
            "type": "object",
            "properties": {name: {"type": "string"} for name in fields},
            "required": fields,
            "additionalProperties": False,
        }
        wanted = {"type": "array", "items": item, "maxItems": most}
    name = _SHAPES[task][0]
    return {"type": "object", "properties": {name: wanted}, "required": [name], "additionalProperties": False}


def extract(text: str) -> Any:
    """The JSON in a model's answer, whatever prose, fences or thoughts stand around it.  Raises Fault."""
    bare = _FENCE.sub("", text).strip()
    for opening in [0, *(m.start() for m in re.finditer(r"[{\[]", bare))][:50]:
        try:
            value, _ = json.JSONDecoder().raw_decode(bare, opening)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict | list):
            return value
    raise Fault("not JSON")


def items(task: Task, value: Any) -> list[BaseModel | Fault]:
    """The items of an answer, those of the wrong shape as Faults.  Raises Fault when there is nothing to look at."""
    name, model = _SHAPES[task]
    found: Any
    if task == "summary":
        found = [value]
    else:
        found = value.get(name) if isinstance(value, dict) else value
        if isinstance(found, dict):
            found = [found]
    if not isinstance(found, list) or not found:
        raise Fault("wrong fields")
    checked: list[BaseModel | Fault] = []
    for item in found[:20]:
        try:
            checked.append(model.model_validate(item))
        except ValidationError:
            checked.append(Fault("wrong fields"))
    return checked


def _stem(word: str) -> str:
    """A crude stem, the same for both texts; what it joins too much costs little, what it misses MOST forgives."""
    if word in COUNTING:
        return COUNTING[word]
    for suffix in ("ing", "ies", "ed", "es", "er", "ly", "s", "e", "y"):
        if word.endswith(suffix) and len(word) - len(suffix) >= 3:
            word = word[: -len(suffix)]
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


def _stems(text: str) -> set[str]:
    return {_stem(word) for word in folded(text).split()}


def _words(text: str) -> Iterator[tuple[str, bool]]:
    """Content words of ``text`` as stems, and whether each is a name or a number."""
    for start, end in chunk.sentences(text):
        for n, match in enumerate(_TOKEN.finditer(text[start:end])):
            word = match[0]
            if word.casefold() in STOPWORDS:
                continue
            special = word[0].isdigit() or word.casefold() in COUNTING or (word[0].isupper() and n > 0)
            for part in folded(word).split():
                yield _stem(part), special


def _grounded(text: str, passage: StoredPassage) -> None:
    """Raises Fault unless every name and number, and most content words, stand in the passage or its heading."""
    held = _stems(f"{passage.heading}\n{passage.text}")
    words = list(_words(text))
    if not words:
        return  # “Yes.”, which its evidence has to bear
    for stem, special in words:
        if special and stem not in held:
            raise Fault("number not in the passage" if stem[0].isdigit() else "name not in the passage")
    if sum(stem in held for stem, _ in words) < MOST * len(words):
        raise Fault("words not in the passage")


def _clean(*texts: str) -> None:
    for text in texts:
        if _MACHINE.search(text) or any(ord(c) < 32 and c not in "\n\t" for c in text):
            raise Fault("machine talk")


def stands_alone(question: str, passage: StoredPassage) -> None:
    """Raises Fault where a question cannot be understood by itself: it must name something of the passage."""
    if _LEANS.search(question):
        raise Fault("question leans on the passage")
    if _DANGLING.match(question):
        raise Fault("question begins with a pronoun")
    heading = {stem for stem, _ in _words(passage.title)}
    asked = list(_words(question))
    held = _stems(f"{passage.heading}\n{passage.text}")
    for stem, special in asked:
        if special and stem not in held:
            raise Fault("question names what is not in the passage")
    if not any(stem in heading or (special and not stem[0].isdigit()) for stem, special in asked):
        raise Fault("question names nothing")


def evidence_in(evidence: str, passage: StoredPassage) -> str:
    """The piece of the passage, as it stands there, that ``evidence`` quotes.  Raises Fault."""
    wanted = tidy(evidence).strip(" .…\"'")
    if len(wanted.split()) < 3:
        raise Fault("evidence too short")
    spans = chunk.sentences(passage.text)
    for size in (1, 2, 3):
        for at in range(len(spans) - size + 1):
            piece = passage.text[spans[at][0] : spans[at + size - 1][1]]
            if wanted in tidy(piece):
                return piece
    raise Fault("evidence not in the passage")


def check_pair(pair: Pair, passage: StoredPassage, standalone: str | None = None) -> str:
    """The evidence as it stands in the passage.  Raises Fault with the first thing that is wrong."""
    question = pair.question if standalone is None else standalone
    _clean(pair.question, question, pair.answer)
    if _LEANS.search(pair.question) or _LEANS.search(pair.answer):
        raise Fault("question leans on the passage" if _LEANS.search(pair.question) else "answer leans on the passage")
    stands_alone(question, passage)
    evidence = evidence_in(pair.evidence, passage)
    _grounded(pair.answer, passage)
    if _DANGLING.fullmatch(pair.answer.strip(" .")):
        raise Fault("answer says nothing")
    words = [stem for stem, _ in _words(pair.answer)]
    asked, near = _stems(question), _stems(f"{passage.heading}\n{evidence}")
    said = set(folded(pair.answer).split())
    for group in _GENDERS:
        if said & group and not set(folded(f"{question} {passage.text}").split()) & group:
            raise Fault("another he or she")
    yes_no = folded(pair.answer).split()[:1] in (["yes"], ["no"])
    if not yes_no and all(stem in asked for stem in words):
        raise Fault("answer says nothing")
    fresh = [stem for stem in words if stem not in asked]
    if fresh and sum(stem in near for stem in fresh) < NEAR * len(fresh):
        raise Fault("answer not in its evidence")
    return evidence


def check_conversation(turns: Sequence[Turn], passage: StoredPassage) -> list[str]:
    """The evidence of every turn.  Raises Fault: one bad turn spoils the conversation."""
    if len(turns) not in TURNS:
        raise Fault("too few or many turns")
    if len({folded(turn.standalone) for turn in turns}) < len(turns):
        raise Fault("asked twice")
    stands_alone(turns[0].question, passage)
    return [check_pair(turn, passage, turn.standalone) for turn in turns]


def check_summary(summary: str, passage: StoredPassage) -> list[str]:
    """The sentences of a summary, every one borne by the passage.  Raises Fault."""
    _clean(summary)
    if _LEANS.search(summary):
        raise Fault("summary leans on the passage")
    text = " ".join(summary.split())
    parts = [text[a:b] for a, b in chunk.sentences(text)]
    if not 8 <= len(text.split()) <= min(110, len(passage.text.split())):
        raise Fault("summary too long or short")
    if text[-1] not in ".!?…\"”’'":
        raise Fault("summary is cut off")
    for part in parts:
        _grounded(part, passage)
        _close(part, passage)
    return parts


def _close(claim: str, passage: StoredPassage) -> None:
    """Raises Fault unless some two neighbouring sentences hold most of a claim, and its he or she.

    Otherwise a false claim could be put together from words at the passage's two ends.
    """
    heading = _stems(passage.heading)
    held = [passage.text[a:b] for a, b in chunk.sentences(passage.text)]
    windows = [" ".join(held[at : at + 2]) for at in range(max(1, len(held) - 1))]
    wanted = {stem for stem, _ in _words(claim)}
    best = max(windows, key=lambda window: len(wanted & (heading | _stems(window))))
    if len(wanted & (heading | _stems(best))) < CLOSE * len(wanted):
        raise Fault("words scattered over the passage")
    for group in _GENDERS:
        if set(folded(claim).split()) & group and not set(folded(best).split()) & group:
            raise Fault("another he or she")
