from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rayalign.algorithms.guidance import cosine_eta, guided


def reward(x_BCHW: Tensor) -> Tensor:
    """Some smooth reward, (B,)."""
    return (x_BCHW.sin() * x_BCHW).flatten(1).sum(1)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (20, 0.1),  # cos pi = -1: 0.1 + 0.05 * 0
        (15, 0.1146447),  # cos(3 pi / 4) = -0.7071068: 0.1 + 0.05 * 0.2928932
        (10, 0.15),  # cos(pi / 2) = 0
        (5, 0.1853553),  # cos(pi / 4) = 0.7071068: 0.1 + 0.05 * 1.7071068
        (0, 0.2),
    ],
)
def test_eta_by_hand(step: int, expected: float) -> None:
    assert cosine_eta(step, 20) == pytest.approx(expected, abs=1e-7)


def test_eta_grows_towards_the_clean_end() -> None:
    curve = [cosine_eta(step, 50, low=0.3, high=0.7) for step in range(50, -1, -1)]
    assert curve == sorted(curve)
    assert (curve[0], curve[-1]) == pytest.approx((0.3, 0.7))
    assert cosine_eta(3, 20, low=0.4, high=0.4) == 0.4


@pytest.mark.parametrize(("step", "num_steps"), [(-1, 20), (21, 20), (0, 0)])
def test_a_step_outside_is_refused(step: int, num_steps: int) -> None:
    with pytest.raises(ValueError, match="step must be in 0"):
        cosine_eta(step, num_steps)


def test_guided_is_the_papers_step() -> None:
    """x - eta grad (r_high - r)^2 by autograd, one sample at a time, with r_high = r + delta held constant."""
    x = torch.randn((3, 2, 4, 4), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    eta, delta = 0.17, 0.5
    expected = []
    for row in x.split(1):
        row = row.clone().requires_grad_()
        r = reward(row)
        (grad,) = torch.autograd.grad(((r.detach() + delta - r) ** 2).sum(), row)
        expected.append(row.detach() - eta * grad)
    x.requires_grad_()
    (reward_grad,) = torch.autograd.grad(reward(x).sum(), x)
    torch.testing.assert_close(guided(x.detach(), reward_grad, eta, delta), torch.cat(expected), atol=1e-12, rtol=0)


def test_a_small_step_raises_every_reward() -> None:
    x = torch.randn((8, 2, 4, 4), generator=torch.Generator().manual_seed(2), requires_grad=True)
    (reward_grad,) = torch.autograd.grad(reward(x).sum(), x)
    assert (reward(guided(x, reward_grad, eta=0.01)) > reward(x)).all()


def test_by_hand() -> None:
    # 1 + 2 * 0.1 * 0.5 * 3 = 1.3; with delta 1: 1.6.
    x, grad = torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), 3.0)
    assert guided(x, grad, 0.1).item() == pytest.approx(1.3)
    assert guided(x, grad, 0.1, delta=1.0).item() == pytest.approx(1.6)


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes must be equal"):
        guided(torch.zeros(2, 1, 2, 2), torch.zeros(1, 1, 2, 2), 0.1)
