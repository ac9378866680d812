"""Another model's questions over our passages: asked, checked, and kept so that a kill loses nothing.

A unit is one passage and one task.  Its rows are appended to ``OUT`` and then its line to ``OUT.ledger``, which says
where ``OUT`` ended: what stands behind the last ledger line belongs to a unit that was killed while writing and is cut
off at the next start, a half-written ledger line likewise.  Units are written in their order whatever the concurrency,
so a killed and resumed run equals an uninterrupted one wherever the server answers alike.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from corpus.instruct_check import (
    Fault,
    Pair,
    Summary,
    Task,
    Turn,
    check_conversation,
    check_pair,
    check_summary,
    extract,
    items,
    schema,
)
from corpus.instruct_endpoint import Broken, Endpoint, Unreachable
from corpus.instruct_patterns import tidy_question
from corpus.instruct_prompt import messages
from corpus.instruct_rows import DEFAULT, Bank, Candidate, InstructError, Row, Shape, Tally, assemble, dump, telltales
from corpus.question_format import folded
from corpus.store import StoredPassage
from corpus.types import FACTS_PATH

LEAST_WORDS = 40  # of a passage that is worth asking about
AGAIN = 2  # answers that may be no JSON before a unit is given up
GIVE_UP_AFTER = 5  # units in a row that the server could not answer

_SUM_UP = ("summarise what the archives say about {t}", "the short version of {t}", "sum up {t}", "{t}, briefly",
           "can you summarise {t} for me")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Unit:
    passage: int
    task: Task

    @property
    def id(self) -> str:
        return f"{self.passage}:{self.task}"

    def rng(self, seed: int) -> random.Random:
        return random.Random(f"{seed}\x1f{self.id}")


@dataclass(slots=True)
class Made:
    """What came of a unit."""

    unit: Unit
    rows: list[Row] = field(default_factory=list)
    rejected: Tally = field(default_factory=Tally)
    error: Broken | Unreachable | None = None


def units(bank: Bank, tasks: Sequence[Task], limit: int | None) -> list[Unit]:
    """Every task of the first ``limit`` passages that are worth it, in the order of their ids."""
    found: list[Unit] = []
    passages = 0
    ids = bank.passage_ids()
    for at in range(0, len(ids), 500):
        for passage in bank.store.passages(ids[at : at + 500]):
            if passage.path != FACTS_PATH and len(passage.text.split()) >= LEAST_WORDS:
                found += [Unit(passage.id, task) for task in tasks]
                passages += 1
                if passages == limit:
                    return found
    return found


async def work(unit: Unit, bank: Bank, endpoint: Endpoint, seed: int, n: int, shape: Shape) -> Made:
    """Ask for one unit and keep what holds.  Raises Refused; other trouble is told in ``Made.error``."""
    made = Made(unit)
    [passage] = bank.store.passages([unit.passage])
    value: Any = None
    for attempt in range(AGAIN):
        asked = zlib.crc32(f"{seed}:{unit.id}:{attempt}".encode()) & 0x7FFFFFFF  # fits every server's integer
        try:
            text, cut = await endpoint.ask(messages(passage, unit.task, n), schema(unit.task, n), asked)
        except (Broken, Unreachable) as error:
            made.error = error
            return made
        try:
            value = extract(text)
            break
        except Fault as fault:
            if attempt == AGAIN - 1:
                made.rejected.add("cut off" if cut else str(fault))
                return made
    rng = unit.rng(seed)
    try:
        found = items(unit.task, value)
    except Fault as fault:
        made.rejected.add(str(fault))
        return made
    for candidate in _candidates(unit.task, found, passage, bank, rng, made.rejected):
        if row := assemble(candidate, bank, rng, shape):
            made.rows.append(row)
        else:
            made.rejected.add("no room for the evidence")
    return made


def _candidates(
    task: Task, found: Sequence[object], passage: StoredPassage, bank: Bank, rng: random.Random, rejected: Tally
) -> Iterator[Candidate]:
    if task == "conversation":
        turns = [item for item in found if isinstance(item, Turn)]
        try:
            if len(turns) < len(found):
                raise Fault("wrong fields")
            evidence = check_conversation(turns, passage)
        except Fault as fault:
            rejected.add(str(fault))
            return
        said: list[tuple[str, str]] = []
        for turn, anchor in zip(turns, evidence, strict=True):
            said.append(("user", _line(turn.question)))
            yield _candidate(turn, anchor, passage, bank, tuple(said), turn.standalone, "asked conversation")
            said.append(("assistant", _line(turn.answer)))
        return
    seen: set[str] = set()
    for item in found:
        try:
            if isinstance(item, Fault):
                raise item
            if isinstance(item, Summary):
                yield _summary(item, passage, rng)
            elif isinstance(item, Pair):
                anchor = check_pair(item, passage)
                if folded(item.question) in seen:
                    raise Fault("asked twice")
                seen.add(folded(item.question))
                said = [("user", _line(item.question))]
                yield _candidate(item, anchor, passage, bank, tuple(said), item.question, "asked")
        except Fault as fault:
            rejected.add(str(fault))


def _line(text: str) -> str:
    return " ".join(text.split())


def _candidate(
    pair: Pair,
    anchor: str,
    passage: StoredPassage,
    bank: Bank,
    turns: tuple[tuple[str, str], ...],
    query: str,
    kind: str,
) -> Candidate:
    answer = _line(pair.answer)
    free = folded(answer).split()[:1] in (["yes"], ["no"])
    told = answer if not free else anchor
    asked = set(folded(query).split())
    gives = tuple(t for t in telltales(told, passage.title, bank.other_names(answer.rstrip("."))) if t not in asked)
    return Candidate(
        turns=turns,
        answer=answer,
        evidence=(passage,),
        anchors=(anchor,),
        kind=kind,
        query=_line(query),
        article=passage.title,
        gives=gives,
    )


def _summary(item: Summary, passage: StoredPassage, rng: random.Random) -> Candidate:
    parts = check_summary(item.summary, passage)
    asked = rng.choice(_SUM_UP).format(t=passage.heading.replace(" › ", ", "))
    return Candidate(
        turns=(("user", tidy_question(asked)),),
        answer=" ".join(f"{part.rstrip('.')} [0]." if part.endswith(".") else f"{part} [0]" for part in parts),
        evidence=(passage,),
        anchors=(passage.text,),
        kind="asked summary",
        query=tidy_question(asked),
        article=passage.title,
        cited=False,
    )


class Ledger:
    """``OUT`` and ``OUT.ledger``: rows, and which units are done.  Use as a context manager; one process at a time."""

    def __init__(self, out: Path) -> None:
        self.out, self.path = out, out.with_name(out.name + ".ledger")
        self.done: set[str] = set()
        self.kept, self.rejected = Tally(), Tally()

    def __enter__(self) -> Self:
        import fcntl  # here, because Windows has none

        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self._ledger = self.path.open("a+b")
        except OSError as error:
            raise InstructError(f"Cannot write {self.path}: {error.strerror}.") from error
        try:
            try:
                fcntl.flock(self._ledger, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InstructError(
                    f"Another run is writing {self.out}: wait for it, or choose another --out."
                ) from None
            end = self._read()
            try:
                self._rows = self.out.open("ab")
            except OSError as error:
                raise InstructError(f"Cannot write {self.out}: {error.strerror}.") from error
            size = self._rows.seek(0, os.SEEK_END)
            if size < end or (size and not self.done):
                self._rows.close()
                raise InstructError(f"{self.out} does not fit its ledger {self.path.name}: choose another --out.")
            self._rows.truncate(end)
        except BaseException:
            self._ledger.close()
            raise
        return self

    def _read(self) -> int:
        """Take in the ledger, cut its half-written end off, and tell where the rows end, in bytes."""
        self._ledger.seek(0)
        end = good = 0
        for line in self._ledger:
            try:
                entry: Any = json.loads(line) if line.endswith(b"\n") else None
                unit, end = entry["unit"], int(entry["end"])
            except (ValueError, KeyError, TypeError):
                break
            self.done.add(unit)
            for tally, counts in ((self.kept, entry["kept"]), (self.rejected, entry["rejected"])):
                for name, n in counts.items():
                    tally.add(name, n)
            good += len(line)
        self._ledger.truncate(good)
        return end

    def __exit__(self, *exc: object) -> None:
        self._rows.close()
        self._ledger.close()

    def add(self, made: Made) -> None:
        """Write a unit's rows, then that it is done."""
        kept = Tally()
        for row in made.rows:
            kept.add(row["kind"])
            self.kept.add(row["kind"])
        for reason, n in made.rejected.counts.items():
            self.rejected.add(reason, n)
        self._write(self._rows, "".join(map(dump, made.rows)))
        entry = {"unit": made.unit.id, "end": self._rows.tell(), "kept": kept.counts, "rejected": made.rejected.counts}
        self._write(self._ledger, json.dumps(entry, ensure_ascii=False) + "\n")
        self.done.add(made.unit.id)

    @staticmethod
    def _write(file: Any, text: str) -> None:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())  # cheap beside a model's answer; keeps rows before their ledger line on a power cut


async def run(
    bank: Bank,
    endpoint: Endpoint,
    ledger: Ledger,
    todo: Sequence[Unit],
    *,
    seed: int = 0,
    n: int = 3,
    shape: Shape = DEFAULT,
    concurrency: int = 1,
    progress: Progress | None = None,
) -> int:
    """Work through the units that are not done; returns how many the server could not answer this time.

    Raises Refused, Unreachable, or Broken after GIVE_UP_AFTER failures in a row.
    """
    await endpoint.check()
    gate = asyncio.Semaphore(concurrency)
    left = deque(unit for unit in todo if unit.id not in ledger.done)
    bar = progress.add_task("Asking", total=len(todo), completed=len(todo) - len(left), counts="") if progress else None
    running: deque[asyncio.Task[Made]] = deque()
    failed = in_a_row = 0

    async def one(unit: Unit) -> Made:
        async with gate:
            return await work(unit, bank, endpoint, seed, n, shape)

    try:
        while left or running:
            while left and len(running) < 2 * concurrency:
                running.append(asyncio.create_task(one(left.popleft())))
            made = await running.popleft()
            if made.error:
                failed, in_a_row = failed + 1, in_a_row + 1
                if in_a_row >= GIVE_UP_AFTER or isinstance(made.error, Unreachable):
                    raise made.error
            else:
                in_a_row = 0
                ledger.add(made)
            if progress and bar is not None:
                progress.update(bar, advance=1, counts=counts(ledger, failed))
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    return failed


def counts(ledger: Ledger, failed: int) -> str:
    parts = [f"kept {ledger.kept.total:,}", f"rejected {ledger.rejected.total:,}"]
    if ledger.rejected.total:
        parts[-1] += f" ({ledger.rejected})"
    return " · ".join([*parts, *([f"unanswered {failed}"] if failed else [])])


@contextmanager
def bar(console: Console) -> Iterator[Progress]:
    """A progress bar with the counts beside it; titles and reasons are never read as markup."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[counts]}", markup=False),
    )
    with Progress(*columns, console=console, transient=not console.is_terminal) as progress:
        yield progress
