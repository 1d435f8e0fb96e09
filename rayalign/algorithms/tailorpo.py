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


def clip_log_ratio(log_ratio_B: Tensor, clip: float) -> Tensor:
    """Keeps the likelihood ratio in 1 +- clip, (B,); a ratio outside stops pulling.

    From D3PO's code (arXiv 2311.13231); TailorPO's own equation has no clamp.
    """
    low = math.log1p(-clip) if clip < 1 else -math.inf
    return log_ratio_B.clamp(low, math.log1p(clip))
