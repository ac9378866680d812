"""Training curves: what ``log.jsonl`` tells, drawn.

    python -m lm.curves runs/cirilla runs/baseline --against tokens --out runs/curves.png

Reads the logs of any number of runs of ``lm.pretrain``, ``lm.tune`` or ``lm.prefer``; a measure that only some of them
have is drawn for those.  Needs matplotlib (the ``[train]`` extra).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm.errors import LMError

MEASURES = {
    "loss": "training loss",
    "bits_per_byte": "bits per byte, held out",
    "answer_loss": "loss on answers",
    "held_out_answer_loss": "loss on answers, held out",
    "held_out_exact": "answers all right, held out",
    "margin": "margin of the chosen answer",
    "held_out_accuracy": "chosen preferred, held out",
}
"""Measures that are drawn, in this order, and what is written beside them."""


def read(run: Path) -> list[dict[str, Any]]:
    """Lines of a run's log.  Raises LMError if there is none or it is empty."""
    path = run / "log.jsonl" if run.is_dir() else run
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise LMError(f"{path} is no log of a training run: {error}") from error
    if not lines:
        raise LMError(f"{path} is empty: the run has not finished its first window.")
    return lines


def draw(runs: Sequence[Path], out: Path, against: str = "step") -> None:
    """One panel for each measure that the runs have, one line in it for each run.

    Args:
        out: picture to write, PNG or whatever its ending says.
        against: what lies along the bottom: "step", "tokens" or "minutes".

    Raises:
        LMError: a log cannot be read, or no measure is in it, or matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # no pyplot: no window, no global state
    except ImportError:
        raise LMError("Curves need matplotlib: pip install 'cirilla[train]'.") from None

    logs = {run: read(run) for run in runs}
    shown = [m for m in MEASURES if any(m in row and against in row for rows in logs.values() for row in rows)]
    if not shown:
        raise LMError(f"None of the logs has anything to draw against {against}.")
    figure = Figure(figsize=(6.4 * len(shown), 4.2), layout="constrained")
    for axes, measure in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        for run, rows in logs.items():
            points = [(row[against], row[measure]) for row in rows if row.get(measure) is not None and against in row]
            if points:
                name = run.name if run.is_dir() else run.stem
                axes.plot(*zip(*points, strict=True), label=f"{name}: {points[-1][1]:.3f}", linewidth=1.4)
        axes.set_xlabel(against)
        axes.set_title(MEASURES[measure], fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)


def try_to_draw(run: Path) -> None:
    """``curve.png`` beside a run's log; a picture that cannot be drawn is no reason for a finished run to fail."""
    try:
        draw([run], run / "curve.png")
    except Exception as error:  # a font, a full disk, another matplotlib: the run has done its work
        print(f"no curve: {error}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a run, or its log.jsonl")
    parser.add_argument("--against", choices=("step", "tokens", "minutes"), default="step")
    parser.add_argument("--out", type=Path, default=Path("runs/curves.png"))
    args = parser.parse_args()
    try:
        draw(args.runs, args.out, args.against)
    except LMError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
