"""Early-skewed timesteps: noisy steps, which lay out the picture, are trained on more often.

"Rethinking DPO in Diffusion Models" by Kang et al. (arXiv 2505.18736): the schedule in bins of equal length,

    p_k = gamma^k / sum_j gamma^j          k = 0 the noisiest of 50 bins, gamma 0.9

and the timestep jittered inside its bin. Shape letters: B samples, K bins or tuned steps, noisiest first.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rayalign.algorithms.checks import check_batch

# The largest float32 below 1: rounded from float64, the end of the noisiest bin would become 1, a timestep too many.
BELOW_ONE = 1 - 2**-24


def bin_probabilities(num_bins: int = 50, gamma: float = 0.9) -> Tensor:
    """p_k, float64 (num_bins,), the noisiest bin first. gamma = 1 is uniform.

    Raises ValueError unless num_bins is at least 1 and gamma in (0, 1].
    """
    if num_bins < 1:
        raise ValueError(f"num_bins must be at least 1, got {num_bins}")
    if not 0 < gamma <= 1:
        raise ValueError(f"gamma must be in (0, 1], got {gamma}; above 1 it would skew to clean steps")
    powers = gamma ** torch.arange(num_bins, dtype=torch.float64)
    return powers / powers.sum()


def draw_unit(uniform_B: Tensor, jitter_B: Tensor, probabilities_K: Tensor) -> Tensor:
    """Where in the schedule to train, u in [0, 1), 0 the cleanest (`Kernel.from_unit`), (B,) in float32.

    Bin k is the stretch [(K - 1 - k) / K, (K - k) / K): the noisiest one, k = 0, the last.

    Args:
      uniform_B: chooses the bin, uniform in [0, 1). jitter_B: the place inside it, uniform in [0, 1).
      probabilities_K: float64 (K,), from `bin_probabilities`.
    Raises ValueError on other shapes.
    """
    check_batch("uniform", uniform_B, uniform_B.numel())
    check_batch("jitter", jitter_B, uniform_B.numel())
    num_bins = probabilities_K.numel()
    check_batch("probabilities", probabilities_K, num_bins)
    # The last sum can be one rounding short of 1, and a draw beyond it falls in the last bin.
    chosen_B = torch.searchsorted(probabilities_K.cumsum(0), uniform_B.double(), right=True).clamp(max=num_bins - 1)
    unit_B = (num_bins - 1 - chosen_B + jitter_B.double()) / num_bins
    return unit_B.clamp(max=BELOW_ONE).float()


def step_weights(num_tuned: int, gamma: float = 0.9) -> Tensor:
    """What the draw becomes for step-wise pairs, float64 (num_tuned,), mean 1, the noisiest tuned step first.

    Their steps are fixed when they are sampled, so the bins are the tuned steps, and instead of being drawn more often
    an early one counts more; the mean of 1 keeps the learning rate's meaning.
    Raises ValueError as `bin_probabilities` does.
    """
    return num_tuned * bin_probabilities(num_tuned, gamma)
