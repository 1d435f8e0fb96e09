"""The VAE of a run's model alone, for actors that encode or decode and never denoise."""

from __future__ import annotations

from typing import Any

import torch

from rayalign.config import RunConfig
from rayalign.models.families import find_family, resolve_path
from rayalign.models.load import base_dtype, load_other_vae
from rayalign.models.stub import SIDE as STUB_SIDE
from rayalign.models.stub import StubVae


def load_vae(config: RunConfig, device: str | torch.device) -> Any:
    """The VAE that `load_model` would use, frozen, in its precision, on `device`."""
    device = torch.device(device)
    family = find_family(config.model.path, config.model.family)
    if config.model.vae is not None:
        vae = load_other_vae(config.model.vae)
    elif family.name == "stub":
        vae = StubVae()
    else:
        from diffusers import AutoencoderKL

        vae = AutoencoderKL.from_pretrained(resolve_path(config.model.path), subfolder="vae")
    dtype = family.vae_dtype(base_dtype(config.model.dtype, device))
    return vae.to(device, dtype).requires_grad_(False).eval()


def model_resolution(config: RunConfig) -> int:
    """Pixels a side, as `load_model` would draw, read from the model's small files alone."""
    if config.model.resolution is not None:
        return config.model.resolution
    family = find_family(config.model.path, config.model.family)
    if family.name == "stub":
        return 8 * STUB_SIDE
    import diffusers

    path = resolve_path(config.model.path)
    vae = diffusers.AutoencoderKL.load_config(path, subfolder="vae")
    denoiser = getattr(diffusers, family.denoiser_class).load_config(path, subfolder=family.denoiser_part)
    return int(denoiser["sample_size"]) * 2 ** (len(vae["block_out_channels"]) - 1)
