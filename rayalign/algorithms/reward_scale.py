"""A margin's factor inside the sigmoid, larger at noisy steps, where the same difference is harder won.

"Rethinking DPO in Diffusion Models" by Kang et al. (arXiv 2505.18736):

    lambda(t) = 1 + norm( 1 / sqrt(SNR(t)) )          norm: min-max over the schedule
"""

from __future__ import annotations

import math

from torch import Tensor

from rayalign.algorithms.checks import check_batch


def snr_scale(snr_B: Tensor, snr_range: tuple[float, float]) -> Tensor:
    """lambda (B,), from 1 at the clean end of the schedule to 2 at the noisy one.

    SD 1.5's schedule: 1.109 at t = 500, 1.570 at 900, 2 at 999. Min-max leaves the shape to the noisiest timestep: a
    rectified flow, whose 1 / sqrt(SNR) = t / (1 - t) has no bound, is close to 1 nearly everywhere if its range ends
    close to t = 1.

    Args:
      snr_B: (B,), above 0; outside the range it counts as the nearer end.
      snr_range: (lowest, highest) of the schedule (`Kernel.snr_range`), both finite and above 0.
    Raises ValueError on another shape or a range that is none.
    """
    check_batch("snr", snr_B, snr_B.numel())
    low, high = snr_range
    if not 0 < low < high < math.inf:
        raise ValueError(f"snr_range must be (lowest, highest), 0 < lowest < highest < inf, got {snr_range}")
    cleanest, noisiest = high**-0.5, low**-0.5
    return 1 + ((snr_B**-0.5 - cleanest) / (noisiest - cleanest)).clamp(0, 1)
