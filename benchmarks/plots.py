"""The two pictures of ``RESULTS.md``: what an answer risks, and what its confidence is worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")  # no display is needed
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.scores import BINS, Bin, Curve

OURS, OTHER, SOFT = "#0f766e", "#b45309", "#57534e"
STYLE: Any = {
    "svg.hashsalt": "cirilla",
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
}
"""The salt makes equal figures equal files."""


def risk_coverage(
    curves: dict[str, Curve], points: dict[str, tuple[float, float]], threshold: float, path: Path
) -> None:
    """Draw risk against coverage.

    Args:
        curves: of systems that tell a confidence; the first is ours.
        points: (coverage, risk) of systems that only answer or decline.
        threshold: the confidence under which ours declines; marked on its curve.
    """
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
        for (name, curve), colour in zip(curves.items(), (OURS, SOFT), strict=False):
            axes.step(curve.coverage, curve.risk, where="post", color=colour, label=name)
            if name == next(iter(curves)):
                kept = [at for at, sure in enumerate(curve.confidence) if sure >= threshold]
                if kept:
                    axes.plot(curve.coverage[kept[-1]], curve.risk[kept[-1]], "o", color=colour)
                    axes.annotate(
                        f"as released: confidence ≥ {threshold:g}",
                        (curve.coverage[kept[-1]], curve.risk[kept[-1]]),
                        xytext=(-8, 10), textcoords="offset points", ha="right", color=colour,
                    )  # fmt: skip
        for mark, (name, (coverage, risk)) in zip("sD^v", points.items(), strict=False):
            axes.plot(coverage, risk, mark, color=OTHER, label=name)
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="share of the questions that are answered")
        axes.set_ylabel("share of the answers that are wrong")
        axes.legend(frameon=False, fontsize=9, loc="upper left")
        _save(figure, path)


def calibration(bins: Sequence[Bin], error: float, path: Path) -> None:
    """Draw how often answers are right, with 95 % intervals, against how sure they are said to be, and how many."""
    with plt.rc_context(STYLE):
        figure, (above, below) = plt.subplots(
            2, 1, figsize=(5.2, 5.4), height_ratios=(4, 1), sharex=True, layout="constrained"
        )
        assert isinstance(above, Axes) and isinstance(below, Axes)
        above.plot([0, 1], [0, 1], ":", color=SOFT, label="said as it is")
        above.plot([b.confidence for b in bins], [b.right for b in bins], "o-", color=OURS, label="Cirilla")
        low, high = zip(*(b.interval for b in bins), strict=True)
        above.vlines([b.confidence for b in bins], low, high, color=OURS, alpha=0.4)
        above.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share that is right")
        above.set_title(f"expected calibration error {error:.3f}", fontsize=10, color=SOFT)
        above.legend(frameon=False, fontsize=9, loc="upper left")
        below.bar([b.confidence for b in bins], [b.count for b in bins], width=0.6 / BINS, color=OURS)
        below.set(xlabel="confidence", ylabel="answers")
        _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="svg", facecolor="white", metadata={"Date": None})
    plt.close(figure)
