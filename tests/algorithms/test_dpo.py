from __future__ import annotations

import math

import pytest
import torch

from rayalign.algorithms.dpo import dpo_loss, prefers_winner
from rayalign.algorithms.kernel import log_prob
from rayalign.algorithms.tailorpo import margin


def test_pairs_by_hand() -> None:
    # Margins 2, -1, 0: log(1 + e^-2) = 0.1269280, log(1 + e) = 1.3132617, log 2.
    loss, details = dpo_loss(torch.tensor([2.0, -1.0, 0.0]))
    torch.testing.assert_close(loss, torch.tensor([0.1269280, 1.3132617, math.log(2)]), atol=1e-6, rtol=0)
    assert details["implicit_reward"].tolist() == [2.0, -1.0, 0.0]
    assert details["accuracy"].tolist() == [1.0, 0.0, 0.5]


def test_the_scale_stands_inside_the_sigmoid() -> None:
    # Margin 2 scaled by 1.5: log(1 + e^-3) = 0.0485874; by 1: 0.1269280. The margin is reported without it.
    loss, details = dpo_loss(torch.tensor([2.0, 2.0]), torch.tensor([1.5, 1.0]))
    torch.testing.assert_close(loss, torch.tensor([0.0485874, 0.1269280]), atol=1e-6, rtol=0)
    assert details["implicit_reward"].tolist() == [2.0, 2.0]


def test_step_wise_pairs_in_closed_form_and_by_definition() -> None:
    """TailorPO's equation 10 as it stands, from log-probabilities."""
    generator = torch.Generator().manual_seed(1)
    winner, loser, policy, reference = torch.randn((4, 3, 2, 2, 2), generator=generator, dtype=torch.float64)
    std, beta = torch.tensor([0.3, 0.7, 1.1], dtype=torch.float64), 0.4
    loss, _ = dpo_loss(beta * margin(winner, loser, policy, reference, std))
    ratio_w, ratio_l = (log_prob(x, policy, std) - log_prob(x, reference, std) for x in (winner, loser))
    odds_w, odds_l = (beta * ratio_w).exp(), (beta * ratio_l).exp()
    torch.testing.assert_close(loss, -(odds_w / (odds_w + odds_l)).log(), atol=1e-12, rtol=0)


def test_the_gradient_raises_the_margin() -> None:
    # d loss / d margin = -scale sigmoid(-scale margin), here -2 / (1 + e^0.8).
    margin_B = torch.tensor([0.4], requires_grad=True)
    loss, details = dpo_loss(margin_B, torch.tensor([2.0]))
    (grad,) = torch.autograd.grad(loss.sum(), margin_B)
    assert grad.item() == pytest.approx(-2 / (1 + math.exp(0.8)), abs=1e-6)
    assert not any(value.requires_grad for value in details.values())


def test_large_margins_stay_finite() -> None:
    # -log sigmoid(-2000) = 2000; of 2000 it is 0, where log(sigmoid) by itself would be -inf one way.
    loss, _ = dpo_loss(torch.tensor([-2000.0, 2000.0]))
    assert loss.tolist() == [2000.0, 0.0]


def test_accuracy_of_any_shape() -> None:
    assert prefers_winner(torch.tensor([[1e-9, 0.0], [-3.0, -0.0]])).tolist() == [[1.0, 0.5], [0.0, 0.5]]


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match=r"margin must be \(3,\)"):
        dpo_loss(torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"scale must be \(3,\)"):
        dpo_loss(torch.zeros(3), torch.ones(1))
