"""Starting an ingest from the chat, watching it, and answering from its index when it is done.

The work is done by ``python app.py --ingest`` in a process of its own with a lower priority: it can be killed without
harm, its memory goes back when it ends, and questions are answered meanwhile.  ``app.progress`` tells how far it is.
"""

from __future__ import annotations

import atexit
import contextlib
import hmac
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from app import live, progress
from app.errors import AppError
from app.settings import ROOT, Settings
from corpus.errors import CirillaError

if TYPE_CHECKING:
    from app.pipeline import Pipeline

SECRET = "CIRILLA_INGEST_SECRET"
LOG = "ingest.log"
WIKI, CODEX, AGAIN = "wiki", "codex", "again"
PATIENCE = 2.0  # seconds after a wrong secret during which no other is looked at
NICENESS = 10
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Refused(AppError):
    """An ingest may not be started, or not now."""


def needs_secret(settings: Settings) -> bool:
    """Whether whoever opens the page may be somebody else than its owner: on Spaces, behind a proxy, and on any address
    but this machine's own.  A secret that is set is always asked for."""
    return bool(os.environ.get(SECRET)) or settings.behind_proxy or settings.host not in LOOPBACK


def is_off(settings: Settings) -> bool:
    """Whether nobody may start an ingest here, since a secret is needed and none was set."""
    return needs_secret(settings) and not os.environ.get(SECRET)


class Ingests:
    """At most one ingest at a time for one pipeline.  Safe to share between threads."""

    def __init__(self, pipeline: Pipeline, settings: Settings) -> None:
        self.pipeline, self.settings = pipeline, settings
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._waiter: threading.Thread | None = None
        self._error = ""  # of the last one started here, where its progress file says nothing
        self._next_try = 0.0
        atexit.register(self._leave)

    def allow(self, secret: str) -> None:
        """Raises ``Refused`` unless an ingest may be started with this secret."""
        if is_off(self.settings):
            raise Refused(f"Ingests are off here: the owner has not set the secret {SECRET}.")
        if not needs_secret(self.settings):
            return
        with self._lock:
            if time.monotonic() < self._next_try:
                raise Refused("Wait a moment before trying again.")
            if not hmac.compare_digest(secret.encode(), os.environ[SECRET].encode()):
                self._next_try = time.monotonic() + PATIENCE
                raise Refused("That is not the secret.")

    def start(self, what: str, wiki: str = "", limit: int | None = None) -> None:
        """Begin: ``what`` is ``WIKI``, ``CODEX`` or ``AGAIN``.

        Raises:
            Refused: one is running, here or in another program, or an option makes no sense.
        """
        command = [sys.executable, str(ROOT / "app.py"), "--ingest", f"--data={self.settings.data}"]
        if what == CODEX:
            command.append("--codex-only")
        elif what == AGAIN:
            command.append("--rebuild")
        else:
            address = "".join(wiki.split()).replace("\0", "") or self.settings.wiki
            command.append(f"--wiki={address}")  # in one word: an address can never be taken for another option
            if limit is not None:
                if limit < 1:
                    raise Refused("The number of pages must be 1 or more; leave it empty for the whole wiki.")
                command.append(f"--limit={limit}")
        with self._lock:
            if self.running():
                raise Refused("An ingest is running already; it can be watched here.")
            self._error = ""
            folder = Path(self.settings.data)
            try:
                folder.mkdir(parents=True, exist_ok=True)
                with (folder / LOG).open("wb") as log:
                    self._process = subprocess.Popen(
                        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment()
                    )
            except OSError as error:
                raise Refused(f"The ingest could not be started: {error.strerror or error}.") from error
            with contextlib.suppress(OSError, AttributeError):  # the chat comes first
                os.setpriority(os.PRIO_PROCESS, self._process.pid, NICENESS)
            self._waiter = threading.Thread(target=self._wait, args=(self._process,), name="ingest", daemon=True)
            self._waiter.start()

    def stop(self) -> None:
        """Ask the ingest that is going on to end, whoever started it; what it has fetched is kept and indexed.

        Raises:
            Refused: the data folder cannot be written to.
        """
        try:
            if pid := self._pid():
                progress.ask_to_stop(Path(self.settings.data), pid)
        except OSError as error:
            raise Refused(f"The ingest could not be told to stop: {error.strerror or error}.") from error

    def stopping(self) -> bool:
        """Whether the ingest that is going on was asked to end and has not come to a place where it can."""
        return progress.asked_to_stop(Path(self.settings.data), self._pid())

    def running(self) -> bool:
        """Whether an ingest is going on in this data folder, whoever started it; or its index is being taken over."""
        if self._waiter is not None and self._waiter.is_alive():
            return True
        state = self.state()
        return state is not None and state.alive

    def state(self) -> progress.State | None:
        return progress.read(Path(self.settings.data))

    @property
    def error(self) -> str:
        """One line about what went wrong with the last one; "" when nothing did."""
        state = self.state()
        return self._error or (state.error if state is not None else "")

    def catch_up(self) -> bool:
        """Answer from an index that another program has built meanwhile; whether there was one."""
        try:
            return live.reload(self.pipeline)
        except CirillaError as error:
            self._error = str(error)
            return False

    def wait(self, seconds: float) -> bool:
        """Wait for the one started here to be done, index included; whether it is."""
        if self._waiter is not None:
            self._waiter.join(seconds)
            return not self._waiter.is_alive()
        return True

    def _pid(self) -> int:
        """Process id of the ingest that is going on; 0 without one."""
        if self._process is not None and self._process.poll() is None:
            return self._process.pid  # before its first line of progress too
        state = self.state()
        return state.pid if state is not None and state.alive else 0

    def _leave(self) -> None:
        """The chat ends: so does what it started, in its own time."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(Refused):
                self.stop()

    def _environment(self) -> dict[str, str]:
        """Ours, with the settings in use spelt out, and without the secret."""
        names = ("codex", "encoder_weights", "wiki", "contact")
        given = {f"CIRILLA_{name.upper()}": str(getattr(self.settings, name)) for name in names}
        return {name: value for name, value in os.environ.items() if name != SECRET} | given

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        status = process.wait()
        state = self.state()
        ends = (progress.DONE, progress.STOPPED, progress.FAILED)
        told = state is not None and state.pid == process.pid and state.state in ends
        if status and not told:  # it did not come as far as the lock, or it was killed
            self._error = _last_line(Path(self.settings.data) / LOG) or f"The ingest ended with status {status}."
        try:
            # A wiki that failed half-way has still left an index of what was fetched.
            live.reload(self.pipeline, force=not status)
        except CirillaError as error:
            self._error = str(error)


def _last_line(path: Path) -> str:
    """What a command said last, without the program's name."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return last.removeprefix("cirilla: ")[:500]
