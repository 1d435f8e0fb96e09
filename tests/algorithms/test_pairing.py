from __future__ import annotations

import math

import pytest
import torch

from rayalign.algorithms.pairing import best_against_worst

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("rewards", "winner", "loser", "verdict"),
    [
        ([2.0, 1.0], 0, 1, "pair"),
        ([1.0, 2.0], 1, 0, "pair"),
        ([-3.0, -1.0], 1, 0, "pair"),
        ([1.0, 1.0], 0, 1, "tie"),
        ([0.0, -0.0], 0, 1, "tie"),
        ([NAN, 5.0], 0, 1, "failed"),
        ([5.0, NAN], 0, 1, "failed"),
        ([NAN, NAN], 0, 1, "failed"),
        ([INF, 1.0], 0, 1, "failed"),
        ([-INF, -INF], 0, 1, "failed"),
        # Best against worst; the one between is in no pair.
        ([2.0, 1.0, 3.0], 2, 1, "pair"),
        ([1.0, 2.0, 3.0], 2, 0, "pair"),
        # Two equally best (or worst) are still better than the third.
        ([3.0, 3.0, 1.0], 0, 2, "pair"),
        ([1.0, 3.0, 1.0], 1, 0, "pair"),
        ([2.0, 2.0, 2.0], 0, 1, "tie"),
        ([2.0, 1.0, NAN], 0, 1, "failed"),
    ],
)
def test_one_row(rewards: list[float], winner: int, loser: int, verdict: str) -> None:
    pairing = best_against_worst(torch.tensor([rewards]))
    assert (pairing.winner.item(), pairing.loser.item()) == (winner, loser)
    assert (pairing.tie.item(), pairing.failed.item()) == (verdict == "tie", verdict == "failed")


def test_rows_do_not_disturb_each_other() -> None:
    pairing = best_against_worst(torch.tensor([[1.0, 2.0], [NAN, 2.0], [4.0, 4.0], [2.0, 1.0]]))
    assert pairing.winner.tolist() == [1, 0, 0, 0]
    assert pairing.loser.tolist() == [0, 1, 1, 1]
    assert pairing.tie.tolist() == [False, False, True, False]
    assert pairing.failed.tolist() == [False, True, False, False]
    assert (pairing.winner.dtype, pairing.tie.dtype) == (torch.int64, torch.bool)


def test_a_difference_of_one_bit_is_no_tie() -> None:
    low = torch.tensor(0.1)
    pairing = best_against_worst(torch.stack([low, torch.nextafter(low, torch.tensor(1.0))])[None])
    assert (pairing.winner.item(), pairing.tie.item()) == (1, False)


@pytest.mark.parametrize("shape", [(4,), (4, 1), (2, 2, 2)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\(B, K\) with K >= 2"):
        best_against_worst(torch.zeros(shape))
