"""The rectified-flow transition kernel pi(x_prev | x_t, c) = N(mean(x_t), std_t^2 I).

The flow's ODE turned into an SDE with the same marginals: "Flow-GRPO" by Liu et al. (arXiv 2505.05470), equations 8
and 9. The forward process and the network's target, the velocity, are those of "Scaling Rectified Flow Transformers"
by Esser et al. (arXiv 2403.03206, SD 3), equations 1 and 13. Without noise (a = 0) it equals one
`diffusers.FlowMatchEulerDiscreteScheduler.step`.

| here        | paper                                                    |
|-------------|----------------------------------------------------------|
| t           | t; a timestep is 1000 t, what the denoiser is told       |
| dt          | Delta t, here negative: from noise, t = 1, to data       |
| spread      | sigma_t = a sqrt(t / (1 - t))                            |
| noise_scale | a                                                        |
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from rayalign.algorithms.checks import check_batch, check_same_shape, per_sample
from rayalign.algorithms.kernel import Transition

# A shift may round t = 1 to a little less; 1 / (1 - t) there would make one step of noise swamp the latent.
PURE_NOISE = 1 - 1e-5

# The largest float32 below 1: a unit of 1 would fall into a bin past the last.
BELOW_ONE = 1 - 2**-24


@dataclass(frozen=True)
class RectifiedFlowKernel:
    """An inference grid of a rectified flow.

    sigmas: the N + 1 noise levels t, noisy to clean, the final 0 included: the `sigmas` of the model's own
    FlowMatchEulerDiscreteScheduler after `set_timesteps(N)`, which has the model's shift in them (SD 3: 3).
    noise_scale: a, 0.7 in Flow-GRPO; 0 is the deterministic flow.

    The last step, to t = 0, adds no noise: its mean is x0hat and its std 0, so it has no log-probability. Flow-GRPO's
    own formula adds a t / sqrt(1 - t) there, which stays in the finished picture as grain: 0.1 of a latent's unit where
    the last t is 0.14. (diffusers' grid for SD 3 at 20 steps ends at 0.0089 instead; there the step before, from 0.15,
    adds 0.11, which x0hat cannot take out again. Hence draw finished pictures with a = 0, as Flow-GRPO evaluates.)

    Raises ValueError unless sigmas fall strictly within [0, 1] and end at 0.
    """

    sigmas: tuple[float, ...]
    noise_scale: float = 0.7
    num_train_timesteps: int = 1000

    def __post_init__(self) -> None:
        falls = all(noisier > cleaner for noisier, cleaner in pairwise(self.sigmas))
        if len(self.sigmas) < 2 or not falls or self.sigmas[0] > 1 or self.sigmas[-1] != 0:
            raise ValueError(f"sigmas must fall from at most 1 to a final 0, got {self.sigmas}")

    @property
    def num_steps(self) -> int:
        return len(self.sigmas) - 1

    def timestep(self, step: int) -> float:
        """1000 t of `step`, counted num_steps (noisiest) .. 1 (cleanest)."""
        return self.num_train_timesteps * self.sigmas[self.num_steps - step]

    def timestep_prev(self, step: int) -> float:
        """1000 t that the transition of `step` ends at; 0 at the clean end."""
        return self.num_train_timesteps * self.sigmas[self.num_steps - step + 1]

    def as_timesteps(self, values_B: Tensor) -> Tensor:
        return values_B.float()

    def noise_level(self, t_B: Tensor) -> Tensor:
        """Timesteps (B,) -> t in [0, 1], float32 (B,)."""
        return t_B.float() / self.num_train_timesteps

    def clean_latent(self, prediction: Tensor, x_t: Tensor, t_B: Tensor) -> tuple[Tensor, Tensor]:
        """x0hat = x_t - t v and noise = x_t + (1 - t) v, both (B, C, H, W), that a velocity v at (x_t, t) implies."""
        check_same_shape(prediction=prediction, x_t=x_t)
        check_batch("t", t_B, len(x_t))
        t = per_sample(self.noise_level(t_B), x_t)
        return x_t - t * prediction, x_t + (1 - t) * prediction

    def transition(self, prediction: Tensor, x_t: Tensor, t_B: Tensor, t_prev_B: Tensor) -> Transition:
        """One Euler-Maruyama step from t to t_prev, given the velocity v at (x_t, t). Flow-GRPO's equation 9:

            mean = x_t + [v + spread^2 / (2 t) (x_t + (1 - t) v)] dt        std = spread sqrt(-dt)

        At t = 1 the spread is infinite; as in Flow-GRPO's code the 1 - t in it is then taken at t_prev.

        Args: prediction, x_t (B, C, H, W); t_B, t_prev_B float32 (B,), t_prev < t, 0 for the clean end.
        Raises ValueError on shapes that differ.
        """
        check_batch("t_prev", t_prev_B, len(x_t))
        x0hat, noise = self.clean_latent(prediction, x_t, t_B)
        t, t_prev = self.noise_level(t_B), self.noise_level(t_prev_B)
        from_data = 1 - torch.where(t > PURE_NOISE, t_prev, t)
        # spread^2 / t, which needs no division by t; none at the last step.
        pull = torch.where(t_prev > 0, self.noise_scale**2 / from_data, torch.zeros_like(t))
        dt = t_prev - t
        mean = x_t + (prediction + per_sample(pull / 2, x_t) * noise) * per_sample(dt, x_t)
        return Transition(mean, (pull * t * -dt).sqrt(), x0hat)

    def add_noise(self, x0: Tensor, noise: Tensor, t_B: Tensor) -> Tensor:
        """(1 - t) x0 + t noise."""
        check_same_shape(x0=x0, noise=noise)
        check_batch("t", t_B, len(x0))
        t = per_sample(self.noise_level(t_B), x0)
        return (1 - t) * x0 + t * noise

    def target(self, x0: Tensor, noise: Tensor, t_B: Tensor) -> Tensor:
        """The velocity noise - x0, whatever t is."""
        check_same_shape(x0=x0, noise=noise)
        return noise - x0

    def from_unit(self, u_B: Tensor) -> Tensor:
        """1000 u: uniform in t *(open: SD 3 itself trains with t drawn from a logit-normal)*."""
        return u_B.float() * self.num_train_timesteps

    def to_unit(self, t_B: Tensor) -> Tensor:
        return self.noise_level(t_B).clamp(max=BELOW_ONE)

    def snr(self, t_B: Tensor) -> Tensor:
        """((1 - t) / t)^2, (B,), with t kept within 1/1000 and 999/1000, so that it is neither infinite nor 0."""
        edge = 1 / self.num_train_timesteps
        t = self.noise_level(t_B).clamp(edge, 1 - edge)
        return ((1 - t) / t) ** 2

    def snr_range(self) -> tuple[float, float]:
        lowest, highest = self.snr(torch.tensor([float(self.num_train_timesteps), 0.0])).tolist()
        return lowest, highest
