from __future__ import annotations

import math

import pytest
import torch

from rayalign.algorithms.ddpo import ddpo_loss, group_advantages
from rayalign.algorithms.kernel import log_prob

NAN, INF = math.nan, math.inf


class TestAdvantages:
    def test_by_hand(self) -> None:
        # (1, 3): mean 2, population std 1; (-5, -1): mean -3, std 2. The floor of 1e-6 shows in the 7th place.
        found = group_advantages(torch.tensor([[1.0, 3.0], [-5.0, -1.0]], dtype=torch.float64))
        expected = torch.tensor([[-1 / 1.000001, 1 / 1.000001], [-2 / 2.000001, 2 / 2.000001]], dtype=torch.float64)
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("value", [0.1, 20.3, -1e6, 0.0])
    def test_equal_rewards_prefer_nobody(self, value: float, dtype: torch.dtype) -> None:
        # Exactly: in float64 the mean of three times 0.1 is 0.10000000000000002.
        assert group_advantages(torch.full((2, 3), value, dtype=dtype)).eq(0).all()

    def test_one_trajectory_prefers_nobody(self) -> None:
        assert group_advantages(torch.tensor([[4.0], [-2.0]])).tolist() == [[0.0], [0.0]]

    def test_a_failed_score_stays_out_of_the_mean(self) -> None:
        found = group_advantages(torch.tensor([[1.0, NAN, 3.0], [INF, 2.0, -INF], [NAN, NAN, NAN]]))
        torch.testing.assert_close(
            found,
            torch.tensor([[-1.0, NAN, 1.0], [NAN, 0.0, NAN], [NAN, NAN, NAN]]),
            atol=2e-6,
            rtol=0,
            equal_nan=True,
        )

    def test_close_rewards_keep_their_order(self) -> None:
        # Two PickScores one float32 apart at 20: std 9.5e-7, held down by the floor of 1e-6 to about a half.
        low = torch.tensor(20.0)
        found = group_advantages(torch.stack([low, torch.nextafter(low, torch.tensor(21.0))])[None])
        half = 2.0**-20  # a step of float32 between 16 and 32 is 2^-19; so is twice the std
        torch.testing.assert_close(found, torch.tensor([[-1.0, 1.0]]) * half / (half + 1e-6), atol=1e-6, rtol=0)

    def test_other_ranks_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"rewards must be \(B, G\)"):
            group_advantages(torch.zeros(3))


class TestLoss:
    def test_by_hand(self) -> None:
        # log ratios log 1.5, log 0.5, log 1.05, each with advantage +2 and -2; clip 0.1.
        #   +2: -min(3, 1.1 * 2) = -2.2; -min(1, 0.9 * 2) = -1; -min(2.1, 2.1) = -2.1
        #   -2: -min(-3, -2.2) = 3; -min(-1, -1.8) = 1.8; 2.1
        ratio = torch.tensor([1.5, 0.5, 1.05, 1.5, 0.5, 1.05])
        old = torch.tensor([-1.0, 0.0, 2.0, 0.5, 0.0, 0.0])
        advantage = torch.tensor([2.0, 2.0, 2.0, -2.0, -2.0, -2.0])
        loss, details = ddpo_loss(old + ratio.log(), old, advantage, clip=0.1)
        torch.testing.assert_close(loss, torch.tensor([-2.2, -1.0, -2.1, 3.0, 1.8, 2.1]), atol=1e-5, rtol=0)
        torch.testing.assert_close(details["ratio"], ratio, atol=1e-6, rtol=0)
        assert details["clipped"].tolist() == [1.0, 1.0, 0.0, 1.0, 1.0, 0.0]

    def test_where_the_gradient_ends(self) -> None:
        """It ends where the ratio has already gone where the advantage sends it, and nowhere else."""
        log_ratio = torch.tensor([0.5, -0.5, 0.5, -0.5], requires_grad=True)
        loss, _ = ddpo_loss(log_ratio, torch.zeros(4), torch.tensor([1.0, 1.0, -1.0, -1.0]), clip=0.2)
        (grad,) = torch.autograd.grad(loss.sum(), log_ratio)
        # d(-ratio A) / d log ratio = -ratio A.
        expected = torch.tensor([0.0, -math.exp(-0.5), math.exp(0.5), 0.0])
        torch.testing.assert_close(grad, expected, atol=1e-6, rtol=0)

    def test_first_step_is_the_plain_policy_gradient(self) -> None:
        """At ratio 1 the gradient is that of -A log pi, on the mean's own log-probability."""
        generator = torch.Generator().manual_seed(3)
        x, start = torch.randn((2, 3, 2, 2, 2), generator=generator, dtype=torch.float64)
        std = torch.tensor([0.4, 0.8, 1.0], dtype=torch.float64)
        advantage = torch.tensor([1.5, -0.5, 0.2], dtype=torch.float64)

        mean = start.clone().requires_grad_()
        new, old = log_prob(x, mean, std), log_prob(x, start, std)
        loss, _ = ddpo_loss(new, old, advantage)
        (found,) = torch.autograd.grad(loss.sum(), mean, retain_graph=True)
        (expected,) = torch.autograd.grad((-advantage * new).sum(), mean)
        assert expected.abs().max() > 1e-3
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)

    def test_advantages_are_clamped(self) -> None:
        loss, _ = ddpo_loss(torch.zeros(3), torch.zeros(3), torch.tensor([9.0, -9.0, 3.0]), max_advantage=5.0)
        assert loss.tolist() == [-5.0, 5.0, -3.0]

    def test_details_are_detached(self) -> None:
        loss, details = ddpo_loss(torch.zeros(2, requires_grad=True), torch.zeros(2), torch.ones(2))
        assert loss.requires_grad
        assert not any(value.requires_grad for value in details.values())

    def test_shapes_that_would_broadcast_are_refused(self) -> None:
        three, one = torch.zeros(3), torch.zeros(1)
        with pytest.raises(ValueError, match=r"log_prob_old must be \(3,\)"):
            ddpo_loss(three, one, three)
        with pytest.raises(ValueError, match=r"advantage must be \(3,\)"):
            ddpo_loss(three, three, one)
        with pytest.raises(ValueError, match=r"log_prob must be \(3,\)"):
            ddpo_loss(three[None], three, three)
