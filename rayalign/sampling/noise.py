"""Every random draw of a trajectory, from one generator a sample, so that no draw depends on its neighbours.

Drawn on the CPU in float32, in the order diffusers draws (x_T, then a noise a step): the same seed gives the same
picture on any device, and in a plain diffusers pipeline with `generator=torch.Generator().manual_seed(seed)`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class SampleNoise:
    """Standard normal latents for B samples, one seed each."""

    def __init__(self, seeds: Sequence[int], latent_shape: tuple[int, int, int], device: torch.device) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._shape, self._device = latent_shape, device

    def draw(self) -> Tensor:
        """The next (B, C, H, W)."""
        drawn = [torch.randn((1, *self._shape), generator=generator) for generator in self._generators]
        return torch.cat(drawn).to(self._device)

    def choose(self, count: int) -> Tensor:
        """One of `count` candidates for each sample, uniformly: int64 (B,), on the CPU."""
        return torch.cat([torch.randint(count, (1,), generator=generator) for generator in self._generators])
