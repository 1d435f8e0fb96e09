"""Supervised fine-tuning: fit the winners, leave the losers out. The baseline that any preference loss should beat.

On winners re-noised from final images it is the baseline of "Diffusion Model Alignment Using Direct Preference
Optimization" by Wallace et al. (arXiv 2311.12908); on winners drawn at a step it is the likelihood of that step.
"""

from __future__ import annotations

from torch import Tensor

from rayalign.algorithms.checks import check_batch
from rayalign.algorithms.diffusion_dpo import denoising_error


def transition_sft_loss(winner: Tensor, mean_policy: Tensor, std_B: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """mean( (x^w - mean_th)^2 ) / (2 std^2), (B,): -log pi_th(x^w|x_t) up to a constant, mean over latent elements.

    With it the detached squared error, (B,), which is not weighed by the step's std.
    Args: winner, mean_policy (B, C, H, W); std_B (B,), above 0. Raises ValueError on shapes that differ.
    """
    check_batch("std", std_B, len(winner))
    error = denoising_error(mean_policy, winner)
    return error / (2 * std_B**2), {"winner_error": error.detach()}


def renoised_sft_loss(prediction_policy: Tensor, target: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """mean( (target - prediction)^2 ), (B,), on the re-noised winner: the loss of pre-training. With it, detached.

    Args: prediction_policy, target (B, C, H, W). Raises ValueError on shapes that differ.
    """
    error = denoising_error(prediction_policy, target)
    return error, {"winner_error": error.detach()}
