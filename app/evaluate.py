"""Scoring the pipeline on a file of questions.

A row of the file (JSON lines) is one of::

    {"id": …, "question": …, "answers": [aliases of the right answer]}
    {"id": …, "question": …, "decline": true}
    {"id": …, "turns": [{"question": …, "answers": […]}, …]}

A turn may hold ``decline`` in the place of ``answers``, or neither when it only sets the scene.  An alias counts as
said when it stands between word boundaries, whatever its case, accents and apostrophes.  Further keys are allowed;
those of ``corpus/questions`` (``evidence``, ``article``, ``rewrite``, ``type``, ``canon``, ``correction``) tell
``app.misses`` which stage lost an answer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from app import support
from app.answer import Answer
from app.carry import Turn
from app.errors import BadQuestionFile
from corpus.store import StoredPassage
from retrieval import words

TOP = 5  # passages of the search among which an alias counts as found


class Asks(Protocol):
    """What is evaluated: ``Pipeline`` or anything that answers like it."""

    def ask(self, question: str, history: Sequence[Turn] = (), canon: str | None = None) -> Answer: ...


@dataclass(frozen=True, slots=True)
class Ask:
    """One question with what is expected: aliases, a refusal, or nothing (it only sets the scene)."""

    question: str
    answers: tuple[str, ...] = ()
    decline: bool = False
    extra: dict[str, Any] = field(default_factory=dict)  # further keys of a turn


@dataclass(frozen=True, slots=True)
class Item:
    """One row of a question file: a single question, or the turns of a conversation."""

    id: str
    turns: tuple[Ask, ...]
    extra: dict[str, Any] = field(default_factory=dict)  # further keys of the row, carried into the report


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one question."""

    id: str
    turn: int  # from 0
    question: str
    expected: tuple[str, ...]
    decline: bool
    answer: dict[str, Any]  # the contract's JSON
    right: bool  # an alias in the answer, or declined where it should have
    cited: bool  # an alias in a cited passage
    found: bool  # an alias among the first passages of the search
    sentences: int  # of the answer
    supported: int  # of them, those that their citation bears
    ms: float
    extra: dict[str, Any] = field(default_factory=dict)  # of the row and of the turn
    reply: Answer | None = field(default=None, repr=False)  # the answer itself, with what the search brought

    @property
    def corrected(self) -> bool:
        """Whether a false premise was answered with the very sentence that the file gives to correct it."""
        told = [evidence for evidence in evidence_of(self.extra) if self.extra.get("correction")]
        return self.decline and any(says(c["quote"], told) for c in self.answer["citations"])


def read(path: Path) -> list[Item]:
    """The questions of a file, in order; blank lines are passed over.

    Raises:
        BadQuestionFile: naming the line, for anything that is not as described above.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise BadQuestionFile(f"{path}: cannot be read: {reason}.") from None
    items: list[Item] = []
    seen: set[str] = set()
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            item = _item(json.loads(line))
        except json.JSONDecodeError as error:
            raise BadQuestionFile(f"{path}, line {number}: not JSON ({error.msg}).") from None
        except (ValueError, RecursionError) as error:
            raise BadQuestionFile(f"{path}, line {number}: {error}.") from None
        if item.id in seen:
            raise BadQuestionFile(f"{path}, line {number}: the id {item.id!r} was used before.")
        seen.add(item.id)
        items.append(item)
    if not items:
        raise BadQuestionFile(f"{path}: holds no questions.")
    return items


def _item(row: Any) -> Item:
    if not isinstance(row, dict):
        raise ValueError("a row must be an object with “id” and “question” or “turns”")
    if not isinstance(row.get("id"), str | int) or row["id"] == "":
        raise ValueError("“id” is missing or neither text nor a whole number")
    if "turns" not in row:
        ask = _ask(row, required=True)
        return Item(str(row["id"]), (replace(ask, extra={}),), ask.extra)
    if not isinstance(row["turns"], list) or not row["turns"]:
        raise ValueError("“turns” must be a list of questions")
    return Item(str(row["id"]), tuple(_ask(turn, required=False) for turn in row["turns"]), _further(row))


def _further(row: dict[str, Any]) -> dict[str, Any]:
    used = {"id", "question", "answers", "decline", "turns"}
    return {name: value for name, value in row.items() if name not in used}


def _ask(row: Any, required: bool) -> Ask:
    if not isinstance(row, dict) or not isinstance(row.get("question"), str):
        raise ValueError("“question” is missing or no text")
    answers, decline = row.get("answers", []), row.get("decline", False)
    if not isinstance(answers, list) or not all(isinstance(a, str) and words.key(a).strip() for a in answers):
        raise ValueError("“answers” must be a list of texts, none of them empty")
    if not isinstance(decline, bool):
        raise ValueError("“decline” must be true or false")
    if answers and decline:
        raise ValueError("“answers” and “decline” exclude each other")
    if required and not answers and not decline:
        raise ValueError("either “answers” or “decline”: true is needed")
    return Ask(row["question"], tuple(answers), decline, _further(row))


def evidence_of(extra: dict[str, Any]) -> list[str]:
    """The sentences that a row names as its evidence: text, a list of texts, or of objects that hold ``text``."""
    named = extra.get("evidence") or []
    named = named if isinstance(named, list) else [named]
    texts = [one.get("text") if isinstance(one, dict) else one for one in named]
    return [text for text in texts if isinstance(text, str) and text.strip()]


def says(text: str, aliases: Sequence[str]) -> bool:
    """Whether a text holds one of the aliases, between word boundaries, whatever the case and the accents.

    An alias of the form ``a + b`` is a list: each of its parts must be there, in any order.
    """
    return holds(plain(text), aliases)


def holds(said: str, aliases: Sequence[str]) -> bool:
    """As ``says``, for a text that is ``plain`` already."""

    def all_of(alias: str) -> bool:
        parts = [plain(part) for part in alias.split(" + ")]
        return any(part.strip() for part in parts) and all(part in said for part in parts)

    return any(all_of(alias) for alias in aliases)


@lru_cache(maxsize=1 << 14)
def plain(text: str) -> str:
    """The words of a text between single spaces, one at either end."""
    return words.plain(text)


def groundedness(answer: Answer) -> tuple[int, int]:
    """(sentences of the answer, those that the passage they cite bears)."""
    good = 0
    for sentence in answer.sentences:
        cited = next((c for c in answer.citations if c.n == sentence.n), None)
        if cited is None:
            continue
        passage = StoredPassage(
            id=0, page=0, source="", title=cited.title, display_title=cited.title, path=(cited.section,),
            heading=f"{cited.title} › {cited.section}", text=cited.passage, start=0, end=len(cited.passage), section=0,
            canon=cited.canon, url=cited.url, revid=0, rights="", rights_url="",
        )  # fmt: skip
        claim = support.claim_of(sentence.text).strip(" .")
        # "She-Who-Knows" holds no word to compare, but stands in the row that it cites.
        verbatim = cited.quote in sentence.text or (claim != "" and claim in cited.quote)
        good += verbatim or support.supported(claim, passage).ok
    return len(answer.sentences), good


def run(asks: Asks, items: Sequence[Item], progress: Callable[[int], None] = lambda done: None) -> Iterator[Outcome]:
    """Ask every question; the turns of a conversation see the answers before them.  ``progress`` gets turns done."""
    done = 0
    for item in items:
        history: list[Turn] = []
        for number, ask in enumerate(item.turns):
            answer = asks.ask(ask.question, history)
            history.append(answer.as_turn())
            sentences, supported = groundedness(answer)
            found = [f"{hit.passage.heading} {hit.passage.text}" for hit in answer.hits[:TOP]]
            cited = [f"{c.title} {c.section} {c.passage}" for c in answer.citations]
            right = answer.abstained if ask.decline else not answer.abstained and says(answer.answer, ask.answers)
            done += 1
            progress(done)
            if ask.answers or ask.decline:
                yield Outcome(
                    item.id, number, ask.question, ask.answers, ask.decline, answer.to_json(), right,
                    any(says(text, ask.answers) for text in cited), any(says(text, ask.answers) for text in found),
                    sentences, supported, answer.timings.get("total", 0.0), item.extra | ask.extra, answer,
                )  # fmt: skip


def summary(outcomes: Sequence[Outcome]) -> dict[str, float | int | None]:
    """The figures.  A share is None where there was nothing to count; latencies are in milliseconds."""
    answerable = [o for o in outcomes if not o.decline]
    declines = [o for o in outcomes if o.decline]
    later = [o for o in answerable if o.turn]
    latencies = sorted(o.ms for o in outcomes)
    return {
        "questions": len(outcomes),
        "answerable": len(answerable),
        "must_decline": len(declines),
        "answer_accuracy": _share(o.right for o in answerable),
        "followup_accuracy": _share(o.right for o in later),
        "retrieval_cited": _share(o.cited for o in answerable),
        f"retrieval_top{TOP}": _share(o.found for o in answerable),
        "decline_recall": _share(o.right for o in declines),
        "declined_or_corrected": _share(o.right or o.corrected for o in declines),
        "false_declines": _share(bool(o.answer["abstained"]) for o in answerable),
        "groundedness": _ratio(sum(o.supported for o in outcomes), sum(o.sentences for o in outcomes)),
        "by_decoder": _share(o.answer["generator"] != "evidence" for o in outcomes if not o.answer["abstained"]),
        "latency_p50_ms": percentile(latencies, 0.50),
        "latency_p95_ms": percentile(latencies, 0.95),
    } | {f"p50_{stage}_ms": value for stage, value in _stages(outcomes).items()}


def _stages(outcomes: Sequence[Outcome]) -> dict[str, float | None]:
    names = dict.fromkeys(stage for o in outcomes for stage in o.answer["timings"] if stage != "total")
    return {
        name: percentile(sorted(o.answer["timings"][name] for o in outcomes if name in o.answer["timings"]), 0.5)
        for name in names
    }


def _share(values: Iterator[bool]) -> float | None:
    counted = list(values)
    return _ratio(sum(counted), len(counted))


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Nearest rank: the smallest value that at least ``share`` of all values do not exceed."""
    return round(ordered[max(0, -int(-share * len(ordered) // 1) - 1)], 1) if ordered else None


def to_json(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Everything, for ``--evaluate … --json OUT``."""
    rows = [asdict(replace(outcome, reply=None)) for outcome in outcomes]
    for row in rows:
        del row["reply"]
    return {"summary": summary(outcomes), "questions": rows}
