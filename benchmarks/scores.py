"""Shares with intervals, risk against coverage, and calibration, over rows of judged questions.

A row is one question or one turn of a conversation (``benchmarks.steps.row``).  Turns of one conversation stand and
fall together, so intervals resample whole items: a cluster bootstrap (Field & Welsh, "Bootstrapping clustered data",
JRSS B 2007), percentiles 2.5 and 97.5, seeded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval.evaluate import RESAMPLES, SEED, Score

Row = dict[str, Any]
Value = Callable[[Row], float | None]
"""What is averaged; None takes the row out of it."""
BINS = 10


@dataclass(frozen=True, slots=True)
class Share(Score):
    """A mean with its interval, and of how many."""

    count: int


def share(rows: Sequence[Row], value: Value, weight: Value = lambda row: 1.0) -> Share | None:
    """Weighted mean of ``value`` over the rows that have one, with its interval; None where there is none."""
    sums: dict[str, list[float]] = {}
    count = 0
    for row in rows:
        v, w = value(row), weight(row)
        if v is None or not w:
            continue
        cell = sums.setdefault(row["item"], [0.0, 0.0])
        cell[0] += v * w
        cell[1] += w
        count += 1
    if not sums:
        return None
    cells = np.array(list(sums.values()))  # (items, 2): weighted sum, weight
    picks = np.random.default_rng(SEED).integers(0, len(cells), size=(RESAMPLES, len(cells)))
    drawn = cells[picks].sum(axis=1)  # (resamples, 2)
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1], [2.5, 97.5])
    mean, whole = cells.sum(axis=0)
    return Share(float(mean / whole), float(low), float(high), count)


def difference(ours: Sequence[Row], theirs: Sequence[Row], value: Value) -> Share | None:
    """Mean of ours minus theirs, question by question, over those that both were asked."""
    other = {(row["item"], row["turn"]): value(row) for row in theirs}
    paired: list[Row] = []
    for row in ours:
        mine, yours = value(row), other.get((row["item"], row["turn"]))
        if mine is not None and yours is not None:
            paired.append({"item": row["item"], "gap": mine - yours})
    return share(paired, lambda row: row["gap"])


def right(row: Row) -> float | None:
    """Of answerable questions, whether the answer is right."""
    return None if row["decline"] else float(row["right"])


def held_back(row: Row) -> float | None:
    """Of questions to be declined, whether they were."""
    return float(row["abstained"]) if row["decline"] else None


def shy(row: Row) -> float | None:
    """Of answerable questions, whether they were declined."""
    return None if row["decline"] else float(row["abstained"])


@dataclass(frozen=True, slots=True)
class Curve:
    """Coverage (share of all questions answered) and risk (share of those that are wrong), the surest first."""

    coverage: list[float]
    risk: list[float]
    confidence: list[float]  # at which one has come so far

    @property
    def area(self) -> float:
        """Mean risk over all coverages (AURC, Geifman & El-Yaniv, ICLR 2019); lower is better."""
        return float(np.mean(self.risk)) if self.risk else 0.0

    def coverage_at(self, risk: float) -> float:
        """The most that can be answered with no more than this risk."""
        return max((c for c, r in zip(self.coverage, self.risk, strict=True) if r <= risk), default=0.0)


def risk_coverage(rows: Sequence[Row]) -> Curve:
    """The curve of a system that tells a confidence for everything (questions to be declined are wrong if answered).

    Questions of equal confidence are answered together or not at all.
    """
    ordered = sorted(rows, key=lambda row: -row["confidence"])
    curve = Curve([], [], [])
    wrong = 0
    for at, row in enumerate(ordered, 1):
        wrong += row["decline"] or not row["right"]
        if at == len(ordered) or ordered[at]["confidence"] < row["confidence"]:
            curve.coverage.append(at / len(ordered))
            curve.risk.append(wrong / at)
            curve.confidence.append(row["confidence"])
    return curve


@dataclass(frozen=True, slots=True)
class Bin:
    """Answers of like confidence."""

    confidence: float  # mean
    right: float  # share
    count: int

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the share (Wilson, JASA 1927), which is honest about few answers, all right ones too."""
        z, n, p = 1.96, self.count, self.right
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def calibration(rows: Sequence[Row]) -> list[Bin]:
    """Ten bins of equal width over the confidence, empty ones left out."""
    cells: dict[int, list[Row]] = {}
    for row in rows:
        cells.setdefault(min(BINS - 1, int(row["confidence"] * BINS)), []).append(row)
    return [
        Bin(
            float(np.mean([row["confidence"] for row in cell])),
            float(np.mean([bool(row["right"]) and not row["decline"] for row in cell])),
            len(cell),
        )
        for _, cell in sorted(cells.items())
    ]


def calibration_error(rows: Sequence[Row]) -> float:
    """Expected calibration error: |confidence − share right| over the bins, by size (Guo et al., ICML 2017)."""
    return sum(abs(b.confidence - b.right) * b.count for b in calibration(rows)) / max(1, len(rows))
