"""Figures that are kept as soon as they are there, so that a long run which was cut off can go on."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

SAME = ("options", "file", "revision")
"""What must not have changed for a run to be gone on with."""


class Kept:
    """Figures by the name of their step, each in a file of its own below ``folder``."""

    def __init__(self, folder: Path, resume: bool) -> None:
        self.folder, self.resume = folder, resume
        folder.mkdir(parents=True, exist_ok=True)

    def begin(self, about: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
        """Keep what is measured here, or take it from the run that is gone on with, which must be the same one.

        ``names``: of the steps; what was kept of them is forgotten when a run begins anew.
        """
        path = self._file("about")
        if self.resume and path.exists():
            before = json.loads(path.read_text(encoding="utf-8"))
            other = [name for name in SAME if before.get(name) != about[name]]
            if other:
                raise SystemExit(f"--resume: the run in {self.folder} differs in {', '.join(other)}; leave it out.")
            return before
        for name in names:
            self._file(name).unlink(missing_ok=True)
        self._write(path, about)
        return about

    def do(self, name: str, make: Callable[[], dict[str, Any]], peer: str = "") -> dict[str, Any]:
        """The step's figures, with the ``seconds`` it took; for a ``peer`` that is not installed, only ``skipped``."""
        path = self._file(name)
        if self.resume and path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
        say(f"== {name}")
        began = time.perf_counter()
        try:
            made = make()
        except ImportError as error:
            if not peer:
                raise
            made = {"skipped": skipped(peer, error)}
        made["seconds"] = round(time.perf_counter() - began, 1)
        self._write(path, made)
        return made

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    @staticmethod
    def _write(path: Path, value: dict[str, Any]) -> None:
        part = path.with_suffix(".part")
        part.write_text(json.dumps(value), encoding="utf-8")
        part.replace(path)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def skipped(what: str, error: Exception) -> str:
    say(f"\n!!! {what} is LEFT OUT, its package is missing here: {error}\n!!! pip install -e '.[bench]'\n")
    return f"{what}: {error}"
