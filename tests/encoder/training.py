"""What the tests of training share: a task that can only be learnt, and ways to run and to stop a program."""

import json
import random
import sys
from pathlib import Path

import numpy as np
import torch

from encoder import Encoder

_ASKS = [f"{a} {b}" for a in ("red", "blue", "green", "white", "black") for b in ("horse", "river", "sword", "king")]
_TELLS = [f"{a} {b}" for a in ("one", "two", "three", "four", "five") for b in ("sang", "slept", "fell", "won")]
PAIRS = [{"query": q, "passage": t} for q, t in zip(_ASKS, _TELLS, strict=True)]
"""Nothing in a question stands in its passage: which belongs to which can only be learnt."""


def run(module, monkeypatch, *args, status: int = 0) -> None:
    monkeypatch.setattr(sys, "argv", ["x", *map(str, args)])
    assert module.main() == status


def refused(module, monkeypatch, capsys, *args) -> str:
    """The one line that a program says when it cannot train."""
    run(module, monkeypatch, *args, status=1)
    (line,) = capsys.readouterr().err.splitlines()
    return line


def write_pairs(folder: Path) -> Path:
    """A file of 400 rows drawn from ``PAIRS``."""
    rng = random.Random(0)
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(rng.choice(PAIRS)) + "\n" for _ in range(400)))
    return path


def accuracy(folder: Path) -> float:
    """Share of the questions that lie nearest to their own passage."""
    encoder = Encoder.load(folder, torch.float32)
    scores = encoder.encode([p["query"] for p in PAIRS]) @ encoder.encode([p["passage"] for p in PAIRS]).T
    return float((scores.argmax(1) == np.arange(len(PAIRS))).mean())


def run_three_steps(contrastive, monkeypatch, *args) -> None:
    """Contrastive training that is stopped after three steps, as if its minutes were over."""

    def stop_at_three(self, args, state, control, **kwargs):
        control.should_training_stop = control.should_save = state.global_step == 3

    with monkeypatch.context() as patch:
        patch.setattr(contrastive.StopAfter, "on_step_end", stop_at_three)
        run(contrastive, monkeypatch, *args)
