"""Reciprocal rank fusion against numbers worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.fusion import reciprocal_rank_fusion


def test_hand_computed():
    fused = reciprocal_rank_fusion([[1, 2, 3], [3, 1, 4]], k=60)
    assert [id for id, _ in fused] == [1, 3, 2, 4]
    assert dict(fused) == pytest.approx({1: 1 / 61 + 1 / 62, 3: 1 / 63 + 1 / 61, 2: 1 / 62, 4: 1 / 63})


def test_weights_and_k():
    fused = reciprocal_rank_fusion([[1, 2], [2]], weights=[1.0, 0.5], k=1)
    assert fused == [(2, pytest.approx(1 / 3 + 0.5 / 2)), (1, pytest.approx(1 / 2))]


def test_ties_go_to_the_better_best_rank_then_to_the_smaller_id():
    assert [id for id, _ in reciprocal_rank_fusion([[9, 4], [4, 9]])] == [4, 9]
    assert [id for id, _ in reciprocal_rank_fusion([[7], [5]])] == [5, 7]
    # 1/2 + 1/2 equals 1/1: the one that some ranking put first wins over the smaller id.
    fused = reciprocal_rank_fusion([[8, 3], [9, 3]], weights=[1.0, 1.0], k=0)
    assert fused == [(8, 1.0), (9, 1.0), (3, 1.0)]


def test_repeated_ids_count_once():
    assert reciprocal_rank_fusion([[1, 1]], k=60) == [(1, pytest.approx(1 / 61))]


def test_nothing_in_nothing_out():
    assert reciprocal_rank_fusion([]) == reciprocal_rank_fusion([[], []]) == []


def test_wrong_weights():
    with pytest.raises(ValueError):
        reciprocal_rank_fusion([[1]], weights=[1, 2])
    with pytest.raises(ValueError):
        reciprocal_rank_fusion([[1]], weights=[-1])


@given(st.lists(st.lists(st.integers(0, 9), unique=True), max_size=4))
def test_order_of_rankings_does_not_matter_and_agreement_is_kept(rankings):
    fused = reciprocal_rank_fusion(rankings)
    assert dict(fused) == pytest.approx(dict(reciprocal_rank_fusion(rankings[::-1])))
    assert [id for id, _ in reciprocal_rank_fusion(rankings[:1] * 3)] == (rankings or [[]])[0]
    assert sorted(score for _, score in fused)[::-1] == [score for _, score in fused]
