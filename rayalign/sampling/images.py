"""Finished images from prompts and seeds, as a plain diffusers pipeline would draw them (DDIM, or the flow's ODE)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rayalign.models.text_to_image import TextToImage
from rayalign.models.weight_sets import WeightSet
from rayalign.sampling.noise import SampleNoise


@torch.no_grad()
def draw_images(model: TextToImage, prompts: list[str], seeds: Sequence[int], weights: WeightSet = "policy") -> Tensor:
    """Images in [0, 1], float32 (B, 3, height, width), one per (prompt, seed)."""
    kernel, device = model.picture_kernel, model.device
    noise = SampleNoise(seeds, model.latent_shape, device)
    text = model.encode(prompts)
    x = noise.draw()
    for step in range(kernel.num_steps, 0, -1):
        t = torch.full((len(prompts),), kernel.timestep(step), device=device)
        t_prev = torch.full_like(t, kernel.timestep_prev(step))
        mean, std, _ = kernel.transition(model.denoise(x, t, text, weights), x, t, t_prev)
        x = mean + std.reshape(-1, 1, 1, 1) * noise.draw()
    return model.decode(x)


def as_stored(images_BCHW: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Images in [0, 1] as a PNG holds them, uint8 (B, H, W, 3), and these again as a scorer takes them, float32 BCHW.

    Scored so, what a report shows is what was measured.
    """
    pixels = (images_BCHW.cpu().numpy().transpose(0, 2, 3, 1) * 255).round().astype(np.uint8)
    return pixels, pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255
