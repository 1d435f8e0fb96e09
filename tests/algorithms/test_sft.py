from __future__ import annotations

import math

import pytest
import torch

from rayalign.algorithms.kernel import log_prob
from rayalign.algorithms.sft import renoised_sft_loss, transition_sft_loss


def test_a_transition_by_hand() -> None:
    # Winner (1, 3), mean (0, 1): mean(1, 4) = 2.5; std 0.5: 2.5 / (2 * 0.25) = 5. Second sample: mean(4, 0) / 2 = 1.
    winner = torch.tensor([[1.0, 3.0], [2.0, 0.0]]).reshape(2, 2, 1, 1)
    mean = torch.tensor([[0.0, 1.0], [0.0, 0.0]]).reshape(2, 2, 1, 1)
    loss, details = transition_sft_loss(winner, mean, torch.tensor([0.5, 1.0]))
    assert loss.tolist() == [5.0, 1.0]
    assert details["winner_error"].tolist() == [2.5, 2.0]


def test_a_transition_is_minus_log_likelihood_up_to_a_constant() -> None:
    generator = torch.Generator().manual_seed(1)
    winner, start = torch.randn((2, 3, 2, 2, 2), generator=generator, dtype=torch.float64)
    mean, std = start.requires_grad_(), torch.tensor([0.2, 0.6, 1.5], dtype=torch.float64)
    loss, details = transition_sft_loss(winner, mean, std)
    likelihood = log_prob(winner, mean, std)
    torch.testing.assert_close(loss + likelihood, -(std.log() + 0.5 * math.log(2 * math.pi)), atol=1e-12, rtol=0)
    (grad,) = torch.autograd.grad(loss.sum(), mean)
    (expected,) = torch.autograd.grad(-likelihood.sum(), mean)
    torch.testing.assert_close(grad, expected, atol=1e-12, rtol=0)
    assert not details["winner_error"].requires_grad


def test_a_renoised_winner_by_hand() -> None:
    # Noise (1, -1), predicted (0.5, 0): mean(0.25, 1) = 0.625; its gradient 2 (prediction - noise) / 2 = (-0.5, 1).
    prediction = torch.tensor([0.5, 0.0]).reshape(1, 2, 1, 1).requires_grad_()
    loss, details = renoised_sft_loss(prediction, torch.tensor([1.0, -1.0]).reshape(1, 2, 1, 1))
    (grad,) = torch.autograd.grad(loss.sum(), prediction)
    assert loss.tolist() == details["winner_error"].tolist() == [0.625]
    assert grad.flatten().tolist() == [-0.5, 1.0]
    assert not details["winner_error"].requires_grad


def test_shapes_that_would_broadcast_are_refused() -> None:
    latents = torch.zeros(2, 1, 2, 2)
    with pytest.raises(ValueError, match="shapes must be equal"):
        transition_sft_loss(latents, latents[:1], torch.ones(2))
    with pytest.raises(ValueError, match=r"std must be \(2,\)"):
        transition_sft_loss(latents, latents, torch.ones(1))
    with pytest.raises(ValueError, match="shapes must be equal"):
        renoised_sft_loss(latents, latents[:1])
