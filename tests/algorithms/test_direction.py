"""TailorPO's second claim: where the gradient of the preference loss points, with one x_t for the pair and with two.

"Refining Alignment Framework for Diffusion Models with Intermediate-Step Preference Ranking" by Ren et al. (arXiv
2502.01667), equations 9 and 11. The policy here is mean_th(x_t) = A x_t + th, whose parameters move the mean of every
x_t alike, so that -d loss / d th is the direction the means move in, times a positive number:

    (x^w - x^l) + [ mean(x_t^l) - mean(x_t^w) ]

With a shared x_t the bracket is 0 and the means go from loser to winner; else it points at the loser.
"""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rayalign.algorithms.dpo import dpo_loss
from rayalign.algorithms.kernel import log_prob
from rayalign.algorithms.tailorpo import margin

BETA = 0.8
SHAPE = (4, 2, 3, 3)
SLOPE = 0.9


def policy_mean(x_t: Tensor, theta: Tensor) -> Tensor:
    return SLOPE * x_t + theta


def downhill(x_t_winner: Tensor, x_t_loser: Tensor, winner: Tensor, loser: Tensor, std_B: Tensor) -> Tensor:
    """-d loss / d theta, (B, C, H, W), each pair with a theta of its own, 0 at first; the reference has theta 0.05."""
    theta = torch.zeros_like(winner).requires_grad_()
    h = []
    for x, x_t in ((winner, x_t_winner), (loser, x_t_loser)):
        policy, reference = (log_prob(x, policy_mean(x_t, shift), std_B) for shift in (theta, theta.detach() + 0.05))
        h.append(BETA * (policy - reference))
    loss, _ = dpo_loss(h[0] - h[1])
    (grad,) = torch.autograd.grad(loss.sum(), theta)
    return -grad


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return F.cosine_similarity(a.flatten(1), b.flatten(1))


def draws(num: int, seed: int = 0) -> Tensor:
    return torch.randn((num, *SHAPE), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_shared_x_t_pulls_from_loser_to_winner() -> None:
    x_t, noise_w, noise_l = draws(3)
    std = torch.tensor([0.1, 0.3, 1.0, 2.0], dtype=torch.float64)
    spread = std.reshape(-1, 1, 1, 1)
    winner, loser = (SLOPE * x_t + spread * noise for noise in (noise_w, noise_l))
    step = downhill(x_t, x_t, winner, loser, std)
    torch.testing.assert_close(cosine(step, winner - loser), torch.ones(4, dtype=torch.float64), atol=1e-12, rtol=0)
    # And it is the step that the closed form takes.
    mean = (SLOPE * x_t).requires_grad_()
    loss, _ = dpo_loss(BETA * margin(winner, loser, mean, mean.detach() + 0.05, std))
    (grad,) = torch.autograd.grad(loss.sum(), mean)
    torch.testing.assert_close(step, -grad, atol=1e-12, rtol=0)


def test_two_x_t_add_the_term_of_equation_9() -> None:
    x_t_winner, x_t_loser, noise_w, noise_l = draws(4)
    std = torch.full((4,), 0.3, dtype=torch.float64)
    winner, loser = SLOPE * x_t_winner + 0.3 * noise_w, SLOPE * x_t_loser + 0.3 * noise_l
    extra = SLOPE * x_t_loser - SLOPE * x_t_winner
    step = downhill(x_t_winner, x_t_loser, winner, loser, std)
    ones = torch.ones(4, dtype=torch.float64)
    torch.testing.assert_close(cosine(step, winner - loser + extra), ones, atol=1e-12, rtol=0)
    assert (cosine(extra, winner - loser) < -0.5).all()


def test_two_x_t_can_pull_towards_the_loser() -> None:
    # One element. x_t of winner and loser 1 and -1, means 0.9 and -0.9, noise -0.5 and 0.5: the winner is 0.4, the
    # loser -0.4. Direction 0.8 + (-0.9 - 0.9) = -1: down, where the loser is; from a shared x_t of 0 it is 0.8, up.
    # Log ratios to the reference's 0.05, (0.0025 - 0.1 (x - mean)) / (2 * 0.25), are 0.105 and -0.095, from the shared
    # x_t -0.075 and 0.085; so h = 0.8 * 0.2 = 0.16 and -0.128. Steps sigmoid(-h) 0.8 / 0.25 times the direction:
    # -3.2 / (1 + e^0.16) = -1.4722726 and 2.56 / (1 + e^-0.128) = 1.3618083.
    one = lambda value: torch.full((1, 1, 1, 1), value, dtype=torch.float64)  # noqa: E731
    winner, loser, std = one(0.4), one(-0.4), torch.full((1,), 0.5, dtype=torch.float64)
    apart = downhill(one(1.0), one(-1.0), winner, loser, std)
    shared = downhill(one(0.0), one(0.0), winner, loser, std)
    assert apart.item() == pytest.approx(-1.4722726, abs=1e-6)
    assert shared.item() == pytest.approx(1.3618083, abs=1e-6)

    def gain(theta: Tensor) -> float:
        """How much more the step raises log pi of the winner than of the loser, seen from the x_t between the two."""
        after, before = policy_mean(one(0.0), theta), policy_mean(one(0.0), one(0.0))
        won, lost = (log_prob(x, after, std) - log_prob(x, before, std) for x in (winner, loser))
        return (won - lost).item()

    assert gain(0.01 * apart) < 0 < gain(0.01 * shared)


def test_how_often_two_x_t_pull_towards_the_loser() -> None:
    """Elements of their own, x_t ~ N(0, 1), winner and loser by chance: always right when shared, two in five wrong.

    With u = std (n^w - n^l), the direction, and v = SLOPE (x_t^w - x_t^l) + u, from loser to winner, P(uv < 0) is
    arccos(rho) / pi, rho = std / sqrt(SLOPE^2 + std^2): 0.3162278 at std 0.3, so 0.3975836.
    """
    num, std = 40_000, 0.3
    x_t_winner, x_t_loser, noise_w, noise_l = torch.randn(
        (4, num, 1, 1, 1), generator=torch.Generator().manual_seed(6), dtype=torch.float64
    )
    std_B = torch.full((num,), std, dtype=torch.float64)

    def share_wrong(from_w: Tensor, from_l: Tensor) -> float:
        winner, loser = SLOPE * from_w + std * noise_w, SLOPE * from_l + std * noise_l
        return (downhill(from_w, from_l, winner, loser, std_B) * (winner - loser) < 0).double().mean().item()

    assert share_wrong(x_t_winner, x_t_winner) == 0
    expected = math.acos(std / math.hypot(SLOPE, std)) / math.pi
    # Standard error sqrt(0.4 * 0.6 / 40000) = 0.00245.
    assert share_wrong(x_t_winner, x_t_loser) == pytest.approx(expected, abs=0.01)
