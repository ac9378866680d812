"""How far an ingest has come, written to a small file that anybody may watch: the Archive tab of a running chat, or a
person in another terminal.

The file (``ingest.json`` in the data folder) belongs to whoever holds the ingest's lock.  It is replaced whole, so a
reader never sees half of it, and a folder that refuses it costs the watcher his view and nothing else.

A second file, ``ingest.stop``, goes the other way: it names the process that somebody wants to end.  The ingest looks
for it after each page, while it waits and after each batch of vectors, and ends there as if it had nothing left to do.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path

from corpus.crawl import Watcher
from corpus.errors import CirillaError
from corpus.lock import is_locked

NAME = "ingest.json"
STOP = "ingest.stop"
EVERY = 0.5  # seconds between two writes of the same step, and between two looks for a wish to stop while waiting

RUNNING, DONE, STOPPED, FAILED, BROKEN = "running", "done", "stopped", "failed", "broken"


class Stopped(Exception):
    """Somebody asked the ingest to end, see ``ask_to_stop``."""


@dataclass(frozen=True, slots=True)
class State:
    """One ingest, now or at its end."""

    state: str = RUNNING
    pid: int = 0
    step: str = ""  # what is being done, for people
    done: int = 0
    total: int | None = None  # of this step; None while nobody knows
    passages: int = 0  # in the archive
    started: str = ""  # ISO 8601, UTC
    notes: tuple[str, ...] = ()  # the last few lines worth telling: waits, pages that failed
    error: str = ""
    lines: tuple[str, ...] = ()  # the report at the end

    @property
    def alive(self) -> bool:
        """Whether it is going on."""
        return self.state == RUNNING


def read(folder: Path) -> State | None:
    """What the last ingest of a data folder wrote; None when there was none or the file makes no sense.

    One whose process was killed is ``BROKEN``, whatever the file says: its lock is free.
    """
    locked = is_locked(folder)  # first: an ingest writes its end before it lets go
    try:
        row = json.loads((folder / NAME).read_text(encoding="utf-8"))
        known = {key: value for key, value in row.items() if key in {each.name for each in fields(State)}}
        found = State(**known | {"notes": tuple(known.get("notes", ())), "lines": tuple(known.get("lines", ()))})
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    if not isinstance(found.pid, int) or not isinstance(found.done, int) or not isinstance(found.passages, int):
        return None
    return replace(found, state=BROKEN) if found.alive and not locked else found


def ask_to_stop(folder: Path, pid: int) -> None:
    """Ask the ingest with that process id to end.  Raises ``OSError`` where the folder cannot be written to."""
    (folder / STOP).write_text(str(pid), encoding="ascii")


def asked_to_stop(folder: Path, pid: int) -> bool:
    """Whether the ingest with that process id was asked to end and has not heard it yet."""
    try:
        return (folder / STOP).read_text(encoding="ascii", errors="replace").strip() == str(pid)
    except OSError:
        return False


@dataclass
class Note:
    """The writing side: a ``crawl.Watcher`` whose pages count towards the current step."""

    folder: Path
    passages: Callable[[], int] = lambda: 0
    now: State = field(default_factory=State)
    _written: float = 0.0

    def step(self, name: str, total: int | None = None) -> None:
        """A new step begins."""
        self.now = replace(self.now, step=name, done=0, total=total)
        self._write()

    def at(self, done: int, total: int | None) -> None:
        """The current step has come so far; written twice a second at most.

        Raises ``Stopped`` when that is wished, unless there is nothing left to do.
        """
        self.now = replace(self.now, done=done, total=total)
        if time.monotonic() - self._written >= EVERY or done == total:
            self._write()
        if done != total:
            self._heed()

    def rest(self, seconds: float) -> None:
        """Sleep; raises ``Stopped`` as soon as that is wished."""
        until = time.monotonic() + seconds
        self._heed()
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, EVERY))
            self._heed()

    def heard(self) -> None:
        """Forget the wish to stop, for it has been followed."""
        if asked_to_stop(self.folder, self.now.pid):
            with contextlib.suppress(OSError):
                (self.folder / STOP).unlink()

    def _heed(self) -> None:
        if asked_to_stop(self.folder, self.now.pid):
            raise Stopped

    # As a Watcher:

    def start(self, total: int) -> None:
        self.at(0, total)

    def page(self, title: str) -> None:
        self.at(self.now.done + 1, self.now.total)

    def note(self, line: str) -> None:
        self.now = replace(self.now, notes=(*self.now.notes, " ".join(line.split())[:300])[-5:])
        self._write()

    def finish(self, lines: tuple[str, ...], error: BaseException | None = None, stopped: bool = False) -> None:
        """The end, with the report's lines and what went wrong, in one line."""
        said = "" if error is None else one_line(error)
        how = FAILED if said else STOPPED if stopped else DONE
        self.now = replace(self.now, state=how, error=said, lines=lines)
        self._write()

    def _write(self) -> None:
        self._written = time.monotonic()
        path = self.folder / NAME
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        with contextlib.suppress(CirillaError):
            self.now = replace(self.now, passages=self.passages())
        with contextlib.suppress(OSError):
            draft.write_text(json.dumps(asdict(self.now), ensure_ascii=False), encoding="utf-8")
            os.replace(draft, path)


def one_line(error: BaseException) -> str:
    """An error as people may read it: its own line where it is one of ours."""
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted."
    if isinstance(error, CirillaError):
        return " ".join(str(error).split())
    return " ".join(f"{type(error).__name__}: {error}".split())


@contextmanager
def noting(folder: Path) -> Iterator[Note]:
    """A ``Note`` for an ingest that holds the lock of ``folder``; an error that leaves the block is its end."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    note = Note(folder, now=State(pid=os.getpid(), started=started))
    try:
        yield note
    except BaseException as error:
        note.finish((), error)
        raise
    finally:
        note.heard()  # it came too late


class Both:
    """A ``crawl.Watcher`` that tells two."""

    def __init__(self, one: Watcher, other: Watcher) -> None:
        self.watchers = (one, other)

    def start(self, total: int) -> None:
        for each in self.watchers:
            each.start(total)

    def page(self, title: str) -> None:
        for each in self.watchers:
            each.page(title)

    def note(self, line: str) -> None:
        for each in self.watchers:
            each.note(line)
