"""TailorPO-G: the winner is pushed up the reward's gradient before it enters the loss.

"Refining Alignment Framework for Diffusion Models with Intermediate-Step Preference Ranking" by Ren et al.
(arXiv 2502.01667), section on gradient guidance:

    x+ = x - eta_t grad_x (r_high - r(x))^2,    r_high = r(x) + delta held constant
       = x + 2 eta_t delta grad_x r(x)
"""

from __future__ import annotations

import math

from torch import Tensor

from rayalign.algorithms.checks import check_same_shape


def cosine_eta(step: int, num_steps: int, low: float = 0.1, high: float = 0.2) -> float:
    """eta_t = low + (high - low)/2 (1 + cos(pi t/T)): `low` at the noisiest step, `high` towards the clean end.

    The paper gives the range and the word cosine only; this curve is our choice.

    Args: step: t, counted num_steps (noisiest) .. 1 as kernels do; 0 is the finished image. num_steps: T.
    Raises ValueError on a step outside.
    """
    if not 0 <= step <= num_steps or num_steps < 1:
        raise ValueError(f"step must be in 0 .. num_steps with num_steps >= 1, got {step} of {num_steps}")
    return low + (high - low) / 2 * (1 + math.cos(math.pi * step / num_steps))


def guided(x: Tensor, reward_grad: Tensor, eta: float, delta: float = 0.5) -> Tensor:
    """x + 2 eta delta grad r, (B, C, H, W).

    Args:
      x: candidates, (B, C, H, W). reward_grad: d r_b / d x_b of each sample's own step-wise reward, which is the
        gradient of the batch's SUM; a mean would divide each sample's step by the batch's size.
      eta: step size (`cosine_eta`). delta: how much more reward is aimed at, in the reward's unit.
    Raises ValueError on shapes that differ.
    """
    check_same_shape(x=x, reward_grad=reward_grad)
    return x + 2 * eta * delta * reward_grad
