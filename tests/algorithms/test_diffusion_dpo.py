from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rayalign.algorithms.diffusion_dpo import denoising_error, implicit_reward
from rayalign.algorithms.dpo import dpo_loss


def latent(*values: float) -> Tensor:
    return torch.tensor(values).reshape(1, len(values), 1, 1)


def test_a_loss_by_hand() -> None:
    # Two elements, one noise for the pair: eps = (1, -1).
    #   winner: policy (0.9, -0.8), errors (0.01, 0.04), mean 0.025; reference (0.5, -1), (0.25, 0), mean 0.125
    #   loser:  policy (0, -1),     errors (1, 0),       mean 0.5;   reference (0.4, -1), (0.36, 0), mean 0.18
    # D^w = 0.025 - 0.125 = -0.1, D^l = 0.5 - 0.18 = 0.32; beta 5: -0.5 * 5 * (-0.1 - 0.32) = 1.05
    # loss = log(1 + e^-1.05) = log(1.3499377) = 0.3000585
    eps, beta = latent(1.0, -1.0), 5.0
    winner = implicit_reward(
        denoising_error(latent(0.9, -0.8), eps),
        denoising_error(latent(0.5, -1.0), eps),
    )
    loser = implicit_reward(
        denoising_error(latent(0.0, -1.0), eps),
        denoising_error(latent(0.4, -1.0), eps),
    )
    loss, details = dpo_loss(beta * (winner - loser))
    assert winner.item() == pytest.approx(0.05, abs=1e-7)
    assert loser.item() == pytest.approx(-0.16, abs=1e-7)
    assert details["implicit_reward"].item() == pytest.approx(1.05, abs=1e-6)
    assert loss.item() == pytest.approx(0.3000585, abs=1e-6)


def test_loss_and_gradient_are_the_definition() -> None:
    generator = torch.Generator().manual_seed(2)
    eps, reference_w, reference_l, *policy = torch.randn((5, 3, 2, 4, 4), generator=generator, dtype=torch.float64)
    policy = [one.requires_grad_() for one in policy]
    beta = 7.0
    h = [
        beta * implicit_reward(denoising_error(one, eps), denoising_error(reference, eps))
        for one, reference in zip(policy, (reference_w, reference_l), strict=True)
    ]
    loss, _ = dpo_loss(h[0] - h[1])
    d_w, d_l = (
        ((eps - one) ** 2).mean((1, 2, 3)) - ((eps - reference) ** 2).mean((1, 2, 3))
        for one, reference in zip(policy, (reference_w, reference_l), strict=True)
    )
    expected = -F.logsigmoid(-0.5 * beta * (d_w - d_l))
    torch.testing.assert_close(loss, expected, atol=1e-12, rtol=0)
    grads = torch.autograd.grad(loss.sum(), policy)
    for grad, expected_grad in zip(grads, torch.autograd.grad(expected.sum(), policy), strict=True):
        assert expected_grad.abs().max() > 1e-3
        torch.testing.assert_close(grad, expected_grad, atol=1e-12, rtol=0)
    # Downhill the winner's prediction goes to the noise, the loser's away from it.
    assert ((eps - policy[0]) * -grads[0]).sum() > 0
    assert ((eps - policy[1]) * -grads[1]).sum() < 0


def test_samples_do_not_disturb_each_other() -> None:
    # Errors of two samples of two elements: mean(1, 9) = 5 and mean(0, 4) = 2.
    prediction = torch.tensor([[1.0, 3.0], [0.0, -2.0]]).reshape(2, 2, 1, 1)
    assert denoising_error(prediction, torch.zeros(2, 2, 1, 1)).tolist() == [5.0, 2.0]


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes must be equal"):
        denoising_error(torch.zeros(2, 1, 2, 2), torch.zeros(1, 1, 2, 2))
    with pytest.raises(ValueError, match=r"error_reference must be \(2,\)"):
        implicit_reward(torch.zeros(2), torch.zeros(1))
    with pytest.raises(ValueError, match=r"error_policy must be \(2,\)"):
        implicit_reward(torch.zeros(2, 1), torch.zeros(2))
