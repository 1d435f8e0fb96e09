"""How far a moving reference has gone from the initial model, and what to do about it: K's gate.

"Rethinking DPO in Diffusion Models" by Kang et al. (arXiv 2505.18736), equation 8. The reference
becomes a copy of the policy every few optimiser steps, until it has gone too far.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from rayalign.algorithms.checks import check_same_shape

GateMode = Literal["freeze", "reinit"]
Decision = Literal["copy", "freeze", "reinit"]


def denoising_divergence(prediction_reference: Tensor, prediction_initial: Tensor, target: Tensor) -> Tensor:
    """mean( (eps - eps_ref)^2 - (eps - eps_init)^2 ), (B,), mean over latent elements (K eq. 8 up to a constant).

    For winners re-noised from images that neither model drew. Factored, so that no large squares are subtracted:

        (eps - ref)^2 - (eps - init)^2 = (init - ref) (2 eps - ref - init)

    Args: all (B, C, H, W), at the same x_t; target is `Kernel.target`. Raises ValueError on shapes that differ.
    """
    check_same_shape(reference=prediction_reference, initial=prediction_initial, target=target)
    product = (prediction_initial - prediction_reference) * (2 * target - prediction_reference - prediction_initial)
    return product.flatten(1).mean(1)


def prediction_distance(prediction_reference: Tensor, prediction_initial: Tensor) -> Tensor:
    """mean( (pred_ref - pred_init)^2 ), (B,), mean over latent elements: the divergence for on-policy pairs.

    Their winners are drawn from the policy itself, so the candidate reference, its copy, denoises them better than the
    initial model does, and K's difference turns negative the further it goes: a gate on it would never close. Where
    the reference is the exact denoiser of what it drew, K's difference is -prediction_distance in expectation; so this
    is the same quantity with the sign it has under the initial model's own images, and delta keeps its unit.

    Args: both (B, C, H, W), at the same x_t. Raises ValueError on shapes that differ.
    """
    check_same_shape(reference=prediction_reference, initial=prediction_initial)
    return ((prediction_reference - prediction_initial) ** 2).flatten(1).mean(1)


@dataclass(frozen=True)
class Gate:
    """The rule; who measures, copies and remembers a freeze is the caller.

    delta: largest divergence that a reference may have, per-element mean square (K: 0.005 for SD 1.5, 0.002 for SDXL).
    mode: past it, `freeze` the reference as it is, or `reinit`: set it back to the initial model (K found it worse).
    K leaves open whether to test before or after the copy, and how long a freeze lasts. Ours: the copy that would be
    installed is measured before it is, and a freeze is for good.
    Raises ValueError on a delta that is not above 0, or another mode.
    """

    delta: float
    mode: GateMode = "freeze"

    def __post_init__(self) -> None:
        if not 0 < self.delta < math.inf:
            raise ValueError(f"delta must be above 0 and finite, got {self.delta}")
        if self.mode not in ("freeze", "reinit"):
            raise ValueError(f"mode must be freeze or reinit, got {self.mode!r}")

    def decide(self, divergence: float) -> Decision:
        """`copy` up to delta, `mode` past it. NaN counts as past: weights that answer NaN are not installed."""
        return "copy" if divergence <= self.delta else self.mode
