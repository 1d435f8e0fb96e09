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

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rayalign.algorithms.checks import check_batch, check_same_shape, per_sample
from rayalign.algorithms.kernel import Transition

PredictionType = Literal["epsilon", "v_prediction"]


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

    def as_timesteps(self, values_B: Tensor) -> Tensor:
        return values_B.round().long()

    def add_noise(self, x0: Tensor, noise: Tensor, t_B: Tensor) -> Tensor:
        """sqrt(abar_t) x0 + sqrt(1 - abar_t) noise."""
        check_same_shape(x0=x0, noise=noise)
        abar_t = per_sample(self.abar(t_B), x0)
        return abar_t.sqrt() * x0 + (1 - abar_t).sqrt() * noise

    def target(self, x0: Tensor, noise: Tensor, t_B: Tensor) -> Tensor:
        if self.prediction_type == "epsilon":
            return noise
        abar_t = per_sample(self.abar(t_B), x0)
        return abar_t.sqrt() * noise - (1 - abar_t).sqrt() * x0

    def from_unit(self, u_B: Tensor) -> Tensor:
        return (u_B * len(self.abar_T)).long().clamp(max=len(self.abar_T) - 1)

    def to_unit(self, t_B: Tensor) -> Tensor:
        return t_B.float() / len(self.abar_T)

    def snr(self, t_B: Tensor) -> Tensor:
        abar_t = self.abar(t_B)
        return abar_t / (1 - abar_t)

    def snr_range(self) -> tuple[float, float]:
        last = len(self.abar_T) - 1
        lowest, highest = self.snr(torch.tensor([last, 0])).tolist()
        return lowest, highest
