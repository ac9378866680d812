"""One turn of a conversation, and how turns are kept in the reader's browser.

What comes back from a browser may have been written by anybody: it is read through a strict schema, and whatever
does not fit is left out.  Showing it is safe all the same, because ``app.render`` escapes everything.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from app.answer import Answer

CANONS = {"books": "Books", "games": "Games", "tv": "Television"}
SHOWN = 30  # turns kept on the page and in the browser; older ones go, so that a long evening does not slow it down
QUESTION_LIMIT = 20_000  # characters of a question that are kept at all; the pipeline reads far fewer
KEPT_LIMIT = 1_000_000  # characters of a conversation that are written to the browser, which has room for some millions


@dataclass(frozen=True, slots=True)
class Place:
    """Where a citation's passage stands in the archive, and who owns it."""

    passage: int  # passages.id
    rights: str = ""
    rights_url: str = ""


@dataclass(slots=True)
class Turn:
    """One question and what has become of it so far."""

    question: str
    status: str = ""  # what is being done now; empty when there is nothing to wait for
    draft: list[str] = field(default_factory=list)  # checked sentences shown before the answer is complete
    answer: dict[str, Any] | None = None  # the contract's JSON
    note: str = ""
    nearest: list[str] = field(default_factory=list)  # titles to try when the archives are silent
    closest: list[dict[str, Any]] = field(default_factory=list)  # and the sentence that comes closest, as a citation
    places: dict[int, Place] = field(default_factory=dict)  # of the citations, by number
    problem: str = ""  # why there is no answer
    verdict: str = ""  # what the reader thought of it: "like", "dislike" or nothing
    begun: bool = False  # somebody is at work on it
    fresh: bool = False  # asked again: an answer that is remembered will not do
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def waiting(self) -> bool:
        """Whether the answer is still being made."""
        return self.answer is None and not self.problem

    @property
    def sources(self) -> list[dict[str, Any]]:
        """The answer's citations; where it has none because the archives are silent, what comes closest."""
        return self.answer["citations"] or self.closest if self.answer is not None else []

    def finish(self, answer: Answer) -> None:
        """Take the whole answer in the place of what was shown of it."""
        self.question, self.note = answer.question or self.question, answer.note
        self.answer, self.status, self.draft = answer.to_json(), "", []
        self.nearest, self.places = list(answer.nearest), places(answer)
        self.closest = [asdict(answer.closest)] if answer.closest else []

    def fail(self, problem: str) -> None:
        """Say why there will be no answer."""
        self.status, self.draft, self.problem = "", [], problem


def places(answer: Answer) -> dict[int, Place]:
    """The passages that an answer cites; its JSON holds their text, but not their keys and licences."""
    hits = [*answer.hits, *(evidence.hit for evidence in answer.evidence), *answer.read]
    known = {(hit.passage.url, " › ".join(hit.passage.path), hit.passage.text): hit.passage for hit in hits}
    found: dict[int, Place] = {}
    for citation in (*answer.citations, *([answer.closest] if answer.closest else [])):
        passage = known.get((citation.url, citation.section, citation.passage))
        if passage is not None:
            found[citation.n] = Place(passage.id, passage.rights, passage.rights_url)
    return found


# -- in the reader's browser ---------------------------------------------------------------------------------------

Line = Annotated[str, Field(max_length=2_000)]


class _Kept(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class _KeptCitation(_Kept):
    n: int = Field(ge=1, le=99)
    title: Line
    url: Line
    section: Line
    canon: Literal["books", "games", "tv", ""]
    passage: str = Field(max_length=20_000)
    start: int = Field(ge=0)
    end: int
    score: float
    place: str = Field("", pattern=r"^\d{0,19}$")  # a text, since JavaScript's numbers end at 2⁵³
    rights: Line = ""
    rights_url: Line = ""

    @model_validator(mode="after")
    def _quote_inside(self) -> _KeptCitation:
        if not self.start <= self.end <= len(self.passage):
            raise ValueError("the quote lies outside its passage")
        return self


class _KeptTurn(_Kept):
    id: str = Field(pattern=r"^[0-9a-f]{32}$")
    question: str = Field(max_length=QUESTION_LIMIT)
    standalone_question: str = Field(max_length=QUESTION_LIMIT)
    answer: str = Field(max_length=20_000)
    abstained: bool
    confidence: float = Field(ge=0, le=1)
    generator: Line
    total: float = Field(ge=0)
    note: Line = ""
    verdict: Literal["", "like", "dislike"] = ""
    nearest: list[Line] = Field(default_factory=list, max_length=10)
    citations: list[_KeptCitation] = Field(max_length=20)


def keep(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """The finished turns as JSON for the browser; the oldest are left out where they would not fit."""
    kept: list[dict[str, Any]] = []
    room = KEPT_LIMIT
    for turn in reversed([turn for turn in turns[-SHOWN:] if turn.answer is not None]):
        row = _row(turn)
        room -= sum(len(citation["passage"]) for citation in row["citations"]) + len(row["question"]) + 2_000
        if room < 0:
            break
        kept.append(row)
    return kept[::-1]


def _row(turn: Turn) -> dict[str, Any]:
    assert turn.answer is not None
    answer = turn.answer
    citations = []
    for citation in turn.sources:
        place = turn.places.get(citation["n"], Place(0))
        citations.append(
            {name: citation[name] for name in ("n", "title", "url", "section", "canon", "passage", "start", "end")}
            | {"score": float(citation["score"]), "place": str(place.passage or "")}
            | {"rights": place.rights, "rights_url": place.rights_url}
        )
    return {
        "id": turn.id,
        "question": turn.question,
        "standalone_question": answer["standalone_question"],
        "answer": answer["answer"],
        "abstained": answer["abstained"],
        "confidence": float(answer["confidence"]),
        "generator": answer["generator"],
        "total": float(answer["timings"].get("total", 0.0)),
        "note": turn.note,
        "verdict": turn.verdict,
        "nearest": turn.nearest,
        "citations": citations,
    }


def restore(kept: object) -> list[Turn]:
    """Turns from what a browser kept; what is not as ``keep`` wrote it is left out."""
    turns: dict[str, Turn] = {}
    for row in kept[-SHOWN:] if isinstance(kept, list) else []:
        try:
            # Through JSON's eyes: 1 may stand for 1.0, "1" may not.
            told = _KeptTurn.model_validate(row)
        except (ValidationError, RecursionError):
            continue
        turns[told.id] = _turn(told)
    return list(turns.values())


def _turn(told: _KeptTurn) -> Turn:
    citations = [
        citation.model_dump(exclude={"place", "rights", "rights_url"})
        | {"quote": citation.passage[citation.start : citation.end]}
        for citation in told.citations
    ]
    answer = told.model_dump(include={"question", "standalone_question", "answer", "abstained", "generator"})
    closest = citations if told.abstained else []
    answer |= {
        "confidence": told.confidence,
        "citations": [] if told.abstained else citations,
        "timings": {"total": told.total},
    }
    found = {
        citation.n: Place(int(citation.place or 0), citation.rights, citation.rights_url) for citation in told.citations
    }
    return Turn(
        told.question,
        answer=answer,
        note=told.note,
        nearest=told.nearest,
        closest=closest,
        places=found,
        verdict=told.verdict,
        id=told.id,
    )
