"""What sampling and training ask of a noise process, whichever it is: DDIM (`ddim.py`) or rectified flow.

One Gaussian, pi(x_prev | x_t, c) = N(mean(x_t), std_t^2 I), and the forward process that re-noises clean latents.
Shape letters: B batch, C H W latent channels, height, width.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

from torch import Tensor

from rayalign.algorithms.checks import check_batch, check_same_shape, per_sample


class Transition(NamedTuple):
    """mean (B, C, H, W), std (B,) and the clean latent that the prediction implies, x0hat (B, C, H, W)."""

    mean: Tensor
    std: Tensor
    x0hat: Tensor


class Kernel(Protocol):
    """A noise process on an inference grid.

    Timesteps are what the denoiser is told, float32 or int64 (B,): 0 .. 999 for DDIM, 1000 sigma for rectified flow.
    Steps count from `num_steps` (noisiest) to 1 (cleanest).
    """

    @property
    def num_steps(self) -> int: ...

    def timestep(self, step: int) -> float:
        """The timestep that the transition of `step` starts from."""
        ...

    def timestep_prev(self, step: int) -> float:
        """The timestep that it ends at; at or below 0 at the clean end, see `is_clean`."""
        ...

    def as_timesteps(self, values_B: Tensor) -> Tensor:
        """Stored timesteps (float32) in the dtype the denoiser and this kernel take."""
        ...

    def clean_latent(self, prediction: Tensor, x_t: Tensor, t_B: Tensor) -> tuple[Tensor, Tensor]:
        """(x0hat, noise), both (B, C, H, W), that a network output at (x_t, t) implies."""
        ...

    def transition(self, prediction: Tensor, x_t: Tensor, t_B: Tensor, t_prev_B: Tensor) -> Transition:
        """One step from t to t_prev, given the network's output at (x_t, t)."""
        ...

    def add_noise(self, x0: Tensor, noise: Tensor, t_B: Tensor) -> Tensor:
        """x_t ~ q(x_t | x0), with the noise given."""
        ...

    def target(self, x0: Tensor, noise: Tensor, t_B: Tensor) -> Tensor:
        """What the network should answer at add_noise(x0, noise, t): noise, v, or the flow's velocity."""
        ...

    def from_unit(self, u_B: Tensor) -> Tensor:
        """u in [0, 1), 0 the cleanest, uniformly drawn -> a timestep drawn as the model was trained."""
        ...

    def to_unit(self, t_B: Tensor) -> Tensor:
        """The inverse of `from_unit`: where in the schedule a timestep lies, in [0, 1)."""
        ...

    def snr(self, t_B: Tensor) -> Tensor:
        """Signal-to-noise ratio of x_t, (B,): the squared factor of x0 over that of the noise."""
        ...

    def snr_range(self) -> tuple[float, float]:
        """(lowest, highest) SNR of the training schedule."""
        ...


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
