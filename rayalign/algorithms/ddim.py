"""The DDIM transition kernel pi(x_prev | x_t, c) = N(mean(x_t), std_t^2 I).

"Denoising Diffusion Implicit Models" by Song et al. (arXiv 2010.02502), equations 12 and 16. It equals one
`diffusers.DDIMScheduler.step(eta=...)` for epsilon and v prediction.

| here        | paper              |
|-------------|--------------------|
| abar_t      | alpha_t (theirs is already cumulative) |
| x0hat       | f_theta(x_t)       |
| std         | sigma_t(eta)       |
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from rayalign.algorithms.checks import check_batch, check_same_shape, per_sample

PredictionType = Literal["epsilon", "v_prediction"]


class Transition(NamedTuple):
    """mean (B, C, H, W), std (B,) and the clean latent that the prediction implies, x0hat (B, C, H, W)."""

    mean: Tensor
    std: Tensor
    x0hat: Tensor


@dataclass(frozen=True)
class DDIMKernel:
    """A noise schedule and an inference grid.

    abar_T: cumulative alphas of the T training timesteps, on the CPU. timesteps: the N training timesteps visited,
    noisy to clean. final_abar: the cumulative alpha beyond the last step (SD: abar_T[0], so std is never 0).
    """

    abar_T: Tensor
    timesteps: tuple[int, ...]
    final_abar: float
    eta: float
    prediction_type: PredictionType

    @property
    def num_steps(self) -> int:
        return len(self.timesteps)

    def timestep(self, step: int) -> int:
        """Training timestep of `step`, counted num_steps (noisiest) .. 1 (cleanest)."""
        return self.timesteps[self.num_steps - step]

    def timestep_prev(self, step: int) -> int:
        """Training timestep the transition of `step` ends at; negative at the clean end.

        diffusers' rule, t - T // N. It is the next grid value for `leading` and `trailing` spacing; for `linspace`
        it differs from it by a few timesteps, and we follow diffusers, since its `step` is what people sample with.
        """
        return self.timestep(step) - len(self.abar_T) // self.num_steps

    def abar(self, timesteps_B: Tensor) -> Tensor:
        """Cumulative alphas (B,), `final_abar` where the timestep is negative. In float32, like diffusers."""
        table = self.abar_T.to(timesteps_B.device)
        inside = table[timesteps_B.clamp(min=0)]
        return torch.where(timesteps_B >= 0, inside, torch.full_like(inside, self.final_abar))

    def clean_latent(self, prediction: Tensor, x_t: Tensor, t_B: Tensor) -> tuple[Tensor, Tensor]:
        """(x0hat, eps) that a network output at (x_t, t) implies."""
        check_same_shape(prediction=prediction, x_t=x_t)
        check_batch("t", t_B, len(x_t))
        abar_t = per_sample(self.abar(t_B), x_t)
        if self.prediction_type == "v_prediction":
            x0hat = abar_t.sqrt() * x_t - (1 - abar_t).sqrt() * prediction
            return x0hat, abar_t.sqrt() * prediction + (1 - abar_t).sqrt() * x_t
        return (x_t - (1 - abar_t).sqrt() * prediction) / abar_t.sqrt(), prediction

    def transition(self, prediction: Tensor, x_t: Tensor, t_B: Tensor, t_prev_B: Tensor) -> Transition:
        """One step from t to t_prev, given the network's output at (x_t, t).

        Args: prediction, x_t (B, C, H, W); t_B, t_prev_B int64 (B,), t_prev < 0 for the clean end.
        Raises ValueError on shapes that differ.
        """
        check_batch("t_prev", t_prev_B, len(x_t))
        x0hat, eps = self.clean_latent(prediction, x_t, t_B)
        abar_t, abar_prev = self.abar(t_B), self.abar(t_prev_B)
        variance = (1 - abar_prev) / (1 - abar_t) * (1 - abar_t / abar_prev)
        # Rounding can leave -1e-9 where both alphas are equal; its root would be NaN.
        std = self.eta * variance.clamp(min=0).sqrt()
        direction = (1 - abar_prev - std**2).clamp(min=0).sqrt()
        mean = per_sample(abar_prev.sqrt(), x_t) * x0hat + per_sample(direction, x_t) * eps
        return Transition(mean, std, x0hat)


def log_prob(x_prev: Tensor, mean: Tensor, std_B: Tensor) -> Tensor:
    """log N(x_prev; mean, std^2 I), (B,), as the MEAN over latent elements, not the sum.

    This is the convention of DDPO, D3PO and SPO; it fixes the unit of beta (methods as published, their 0.1 on a
    4x64x64 latent is 0.1/16384 per nat).
    """
    check_same_shape(x_prev=x_prev, mean=mean)
    check_batch("std", std_B, len(x_prev))
    std = per_sample(std_B, x_prev)
    density = -((x_prev - mean) ** 2) / (2 * std**2) - std.log() - 0.5 * math.log(2 * math.pi)
    return density.flatten(1).mean(1)
