"""TailorPO: direct preference optimisation on two candidates drawn from the same x_t.

"Refining Alignment Framework for Diffusion Models with Intermediate-Step Preference Ranking" by Ren et al.
(arXiv 2502.01667), equation 10:

    h    = beta { [log pi_th(x^w|x_t) - log pi_ref(x^w|x_t)] - [log pi_th(x^l|x_t) - log pi_ref(x^l|x_t)] }
    loss = -log sigmoid(h)

Winner and loser share x_t, so they share the means too, and the difference has the closed form

    h = beta / std^2 * mean( (x^w - x^l) * (mean_th - mean_ref) )

which needs one policy and one reference call for the pair, and subtracts no two large squares.
"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from rayalign.algorithms.checks import check_batch, check_same_shape, per_sample


def log_ratio(x_prev: Tensor, mean_policy: Tensor, mean_reference: Tensor, std_B: Tensor) -> Tensor:
    """log pi_th(x_prev|x_t) - log pi_ref(x_prev|x_t), (B,), mean over latent elements, factored:

        (x - m_ref)^2 - (x - m_th)^2 = (m_th - m_ref) (2x - m_th - m_ref)
    """
    check_same_shape(x_prev=x_prev, mean_policy=mean_policy, mean_reference=mean_reference)
    check_batch("std", std_B, len(x_prev))
    product = (mean_policy - mean_reference) * (2 * x_prev - mean_policy - mean_reference)
    return (product / (2 * per_sample(std_B, x_prev) ** 2)).flatten(1).mean(1)


def margin(winner: Tensor, loser: Tensor, mean_policy: Tensor, mean_reference: Tensor, std_B: Tensor) -> Tensor:
    """h / beta, (B,), in closed form."""
    check_same_shape(winner=winner, loser=loser, mean_policy=mean_policy, mean_reference=mean_reference)
    check_batch("std", std_B, len(winner))
    return ((winner - loser) * (mean_policy - mean_reference)).flatten(1).mean(1) / std_B**2


def tailorpo_loss(
    winner: Tensor,
    loser: Tensor,
    mean_policy: Tensor,
    mean_reference: Tensor,
    std_B: Tensor,
    beta: float,
    ratio_clip: float | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Per-sample loss (B,) and detached diagnostics (B,): margin, accuracy, log ratios of winner and loser.

    Args:
      winner, loser, mean_policy, mean_reference: (B, C, H, W). std_B: (B,), above 0.
      beta: temperature, per mean log-probability.
      ratio_clip: keeps each likelihood ratio in 1 +- ratio_clip; a ratio outside stops pulling. From D3PO's code
        (arXiv 2311.13231); None is the paper's own loss.
    """
    ratio_w = log_ratio(winner, mean_policy, mean_reference, std_B)
    ratio_l = log_ratio(loser, mean_policy, mean_reference, std_B)
    if ratio_clip is None:
        h = beta * margin(winner, loser, mean_policy, mean_reference, std_B)
    else:
        low = math.log1p(-ratio_clip) if ratio_clip < 1 else -math.inf
        high = math.log1p(ratio_clip)
        h = beta * (ratio_w.clamp(low, high) - ratio_l.clamp(low, high))
    details = {
        "implicit_reward": h,
        # Halves for h = 0, where the policy still is the reference and prefers neither.
        "accuracy": (h > 0).float() + 0.5 * (h == 0).float(),
        "log_ratio_winner": ratio_w,
        "log_ratio_loser": ratio_l,
    }
    return -F.logsigmoid(h), {name: value.detach() for name, value in details.items()}
