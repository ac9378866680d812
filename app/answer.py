"""What a question comes to: an answer, its citations, and the events that lead up to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from app.carry import Turn
from corpus.store import StoredPassage
from retrieval.search import Hit

if TYPE_CHECKING:
    from app.evidence import Evidence
    from lm.reader import TracedToken

SILENT = "The archives do not say."
"""What the decoder writes, word for word, when its passages hold no answer."""


@dataclass(frozen=True, slots=True)
class Citation:
    """One numbered source: ``passage[start:end] == quote``, offsets in characters."""

    n: int
    title: str
    url: str  # permanent address of the revision that was read
    section: str  # heading path below the title, "" for an article's lead
    canon: str
    passage: str
    quote: str
    start: int
    end: int
    score: float  # of the passage in the search, higher is better

    def __post_init__(self) -> None:
        assert self.passage[self.start : self.end] == self.quote, "a quote must stand where its offsets say"

    @classmethod
    def of(cls, n: int, passage: StoredPassage, start: int, end: int, score: float) -> Citation:
        """Of ``passage.text[start:end]``."""
        return cls(
            n, passage.display_title or passage.title, passage.url, " › ".join(passage.path), passage.canon,
            passage.text, passage.text[start:end], start, end, score,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sentence:
    """One sentence of an answer: its text, ``[n]`` included, and the citation that bears it."""

    text: str
    n: int
    block: bool = False  # begins a line of its own: an item of a list ("- …"), or what one telling says


def joined(sentences: Sequence[Sentence]) -> str:
    """An answer's sentences as one text."""
    out = ""
    for sentence in sentences:
        out += ("\n" if sentence.block else " ") * bool(out) + sentence.text
    return out


@dataclass(frozen=True, slots=True)
class Answer:
    """The reply to one question.  Every sentence carries a citation unless ``abstained``."""

    question: str
    standalone_question: str
    answer: str
    abstained: bool
    confidence: float  # 0–1, how sure the archives hold this answer
    citations: tuple[Citation, ...]
    timings: dict[str, float]  # stage → milliseconds, with their sum under "total"
    generator: str  # "cirilla" when the decoder phrased at least one sentence, else "evidence"
    note: str = ""  # about the question itself, e.g. that it was cut; not part of the answer
    sentences: tuple[Sentence, ...] = ()
    hits: tuple[Hit, ...] = field(default=(), repr=False)  # what the search brought, for those who look inside
    evidence: tuple[Evidence, ...] = field(default=(), repr=False)  # sentences weighed, best first
    read: tuple[Hit, ...] = field(default=(), repr=False)  # passages that the decoder read, as it numbered them
    excerpts: tuple[str, ...] = field(default=(), repr=False)  # how much of each it read
    tokens: tuple[TracedToken, ...] = field(default=(), repr=False)  # every token that the decoder wrote, kept or not
    corrected: bool = False  # it says that something which the question assumes is not so
    closest: Citation | None = None  # when the archives are silent, the sentence that comes closest; no answer
    nearest: tuple[str, ...] = ()  # titles worth trying when the archives are silent

    def as_turn(self) -> Turn:
        """What the next turn needs to know of this one; of a refusal, what it came closest to: "it" may mean that."""
        titles = [citation.title for citation in self.citations]
        if self.abstained:
            titles += [self.closest.title] if self.closest else []
            titles += self.nearest[:1]
        return Turn(self.standalone_question, "" if self.abstained else self.answer, tuple(dict.fromkeys(titles)))

    def to_json(self) -> dict[str, Any]:
        """The contract's keys and nothing else, ready for ``json.dumps``."""
        return {
            "question": self.question,
            "standalone_question": self.standalone_question,
            "answer": self.answer,
            "abstained": self.abstained,
            "confidence": round(self.confidence, 3),
            "citations": [asdict(citation) for citation in self.citations],
            "timings": {stage: round(ms, 1) for stage, ms in self.timings.items()},
            "generator": self.generator,
        }


@dataclass(frozen=True, slots=True)
class Status:
    """What the pipeline is doing now, in a few words for the reader."""

    text: str


@dataclass(frozen=True, slots=True)
class Draft:
    """A sentence that has passed its check and may be shown while the rest is being written."""

    text: str


@dataclass(frozen=True, slots=True)
class Final:
    """The whole answer; it replaces everything that was shown before."""

    answer: Answer


Event = Status | Draft | Final
