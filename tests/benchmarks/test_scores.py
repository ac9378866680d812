"""Intervals, risk and calibration on rows small enough to count by hand."""

from __future__ import annotations

import pytest

from benchmarks import scores


def rows(*right: bool, decline: bool = False, confidence: float = 0.5) -> list[scores.Row]:
    return [
        {"item": str(at), "turn": 0, "right": r, "decline": decline, "abstained": False, "confidence": confidence}
        for at, r in enumerate(right)
    ]


def test_a_share_counts_only_rows_that_have_the_value():
    asked = rows(True, True, False, True) + rows(True, decline=True)
    share = scores.share(asked, scores.right)
    assert share and (share.mean, share.count) == (0.75, 4)
    assert 0 <= share.low < 0.75 < share.high <= 1
    assert scores.share(asked[4:], scores.right) is None
    bluff = scores.share(asked, scores.held_back)
    assert bluff and bluff.mean == 0.0


def test_weights_make_a_share_of_sentences():
    asked = [{"item": "a", "good": 1, "all": 1}, {"item": "b", "good": 0, "all": 3}, {"item": "c", "good": 0, "all": 0}]
    share = scores.share(asked, lambda r: r["good"] / r["all"] if r["all"] else None, lambda r: r["all"])
    assert share and share.mean == 0.25 and share.count == 2


def test_the_interval_is_seeded_narrows_with_size_and_keeps_conversations_whole():
    few, many = rows(*[True, False] * 10), rows(*[True, False] * 200)
    assert scores.share(few, scores.right) == scores.share(few, scores.right)

    def width(share):
        return share.high - share.low

    assert width(scores.share(many, scores.right)) < width(scores.share(few, scores.right)) / 3
    # Twenty turns in four conversations, each right or wrong as a whole, say no more than four questions do.
    clustered = [row | {"item": str(at // 5), "right": at // 5 % 2 == 0} for at, row in enumerate(few)]
    assert width(scores.share(clustered, scores.right)) > 1.5 * width(scores.share(few, scores.right))


def test_a_difference_is_paired():
    ours, theirs = rows(True, True, False, True), rows(False, True, False, False)
    gap = scores.difference(ours, theirs[:3], scores.right)
    assert gap and gap.count == 3 and gap.mean == pytest.approx(1 / 3)
    assert scores.difference(ours, [], scores.right) is None
    same = scores.difference(ours, ours, scores.right)
    assert same and (same.mean, same.low, same.high) == (0, 0, 0)


def test_risk_rises_as_less_sure_answers_are_given():
    asked = [
        row | {"confidence": sure}
        for row, sure in zip(rows(True, True, False, True), (0.9, 0.8, 0.7, 0.7), strict=True)
    ] + rows(True, decline=True, confidence=0.1)
    curve = scores.risk_coverage(asked)
    assert curve.confidence == [0.9, 0.8, 0.7, 0.1]
    assert curve.coverage == [0.2, 0.4, 0.8, 1.0]
    assert curve.risk == [0, 0, 0.25, 0.4], "equal confidence together; what is to be declined is wrong if answered"
    assert curve.coverage_at(0.1) == 0.4 and curve.coverage_at(0.3) == 0.8 and curve.coverage_at(-1) == 0
    assert curve.area == pytest.approx(0.1625)


def test_calibration_error_is_nothing_when_confidence_is_what_happens():
    honest = rows(*[True] * 3, False, confidence=0.75)
    assert scores.calibration_error(honest) == 0
    assert scores.calibration(honest) == [scores.Bin(0.75, 0.75, 4)]
    boastful = honest + rows(False, False, confidence=1.0)
    assert scores.calibration_error(boastful) == pytest.approx(2 / 6)
    low, high = scores.Bin(0.9, 1.0, 5).interval
    assert (low, high) == (pytest.approx(0.566, abs=0.001), pytest.approx(1.0)), "five of five prove little"
    # A declined question's row is never a right answer, whatever the flag says.
    assert scores.calibration(rows(True, decline=True, confidence=0.05)) == [scores.Bin(0.05, 0.0, 1)]
