"""Between pixels and latents, by a pipeline's VAE: scaling, shift and precision in one place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def decode_latents(vae: Any, latents: Tensor) -> Tensor:
    """Clean latents (B, C, H, W) -> float32 (B, 3, height, width), differentiable and not clamped to [0, 1]."""
    scaled = (latents / vae.config.scaling_factor + _shift(vae)).to(vae.dtype)
    return vae.decode(scaled, return_dict=False)[0].float() / 2 + 0.5


@torch.no_grad()
def encode_pixels(vae: Any, images: Tensor) -> Tensor:
    """Images in [0, 1], (B, 3, height, width) -> clean latents, float32 (B, C, H, W).

    The mean of the VAE's posterior, not a draw from it *(open; Diffusion-DPO's code draws)*: a row then has one latent
    in every epoch, and it can be cached.
    """
    encoded = vae.encode((2 * images - 1).to(vae.dtype))
    mean = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
    return (mean.float() - _shift(vae)) * vae.config.scaling_factor


def _shift(vae: Any) -> float:
    return getattr(vae.config, "shift_factor", None) or 0.0
