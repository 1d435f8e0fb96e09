"""The draws of re-noised training: which timestep, which noise. Each a pure function of the run's seed and the row.

So they are the same whichever worker a pair comes to, and after a resume.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rayalign.algorithms.kernel import Kernel
from rayalign.algorithms.timesteps import bin_probabilities, draw_unit, step_weights
from rayalign.config import EarlyTimesteps, ListedTimesteps, Timesteps
from rayalign.records import derive_seed

Key = tuple[int, int, int]  # iteration, slot, sample


def draw_noise(seed: int, keys: list[Key], draw: int, like_BCHW: Tensor) -> Tensor:
    """Standard normal (B, C, H, W), one generator a row; the same for a pair's winner and loser."""
    shape = (1, *like_BCHW.shape[1:])
    rows = [torch.randn(shape, generator=_generator(seed, "noise", *key, draw)) for key in keys]
    return torch.cat(rows).to(like_BCHW.device)


def draw_timesteps(
    seed: int, keys: list[Key], draw: int, config: Timesteps, kernel: Kernel, device: torch.device
) -> Tensor:
    """(B,) timesteps as the kernel takes them. Rows with one key (a contrast group's) get one timestep."""
    both = torch.cat([torch.rand((1, 2), generator=_generator(seed, "timestep", *key, draw)) for key in keys])
    uniform_B, jitter_B = both.unbind(1)
    if isinstance(config, ListedTimesteps):
        values = torch.tensor(config.values)
        drawn = kernel.as_timesteps(values[(uniform_B * len(values)).long()])
    elif isinstance(config, EarlyTimesteps):
        drawn = kernel.from_unit(draw_unit(uniform_B, jitter_B, bin_probabilities(config.bins, config.gamma)))
    else:
        drawn = kernel.from_unit(uniform_B)
    return drawn.to(device)


def weights_by_step(config: Timesteps, steps: tuple[int, ...]) -> dict[int, float]:
    """Of transitions, whose step was fixed when they were sampled: step -> weight, mean 1 over those trained on."""
    noisiest_first = sorted(steps, reverse=True)
    if not isinstance(config, EarlyTimesteps):
        return dict.fromkeys(noisiest_first, 1.0)
    return dict(zip(noisiest_first, step_weights(len(steps), config.gamma).tolist(), strict=True))


def _generator(seed: int, *parts: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(seed, "renoise", *parts))
