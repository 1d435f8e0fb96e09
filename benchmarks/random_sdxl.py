"""SDXL in its published size with random weights: what it costs, without a download, a tokenizer or a hub.

Denoiser and VAE are built from the configuration of `stabilityai/stable-diffusion-xl-base-1.0`. The two text encoders
are left out: rayalign encodes a prompt once and never touches them again, so random embeddings of their shapes
(77 x 2048, pooled 1280) stand in and cost the denoiser exactly as much.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from rayalign.config import RunConfig
from rayalign.models.conditioning import Conditioning
from rayalign.models.load import DTYPES, assemble
from rayalign.models.published import VAE
from rayalign.models.sdxl import SDXL, UNET
from rayalign.models.text_to_image import TextToImage
from rayalign.records import derive_seed

UNET_PARAMETERS = 2_567_463_684  # of the published model
VAE_PARAMETERS = 83_653_863
SCHEDULER: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "set_alpha_to_one": False,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
TOKENS, WIDTH, POOLED = 77, 2048, 1280


class RandomSDXL(SDXL):
    """The SDXL family, loading from nothing. Conditioning is a function of the prompt, as it must be."""

    name = "sdxl-random"
    required = frozenset()

    def __init__(self, device: torch.device, unet: dict[str, Any] = UNET, vae: dict[str, Any] = VAE) -> None:
        self._device, self._unet, self._vae = device, unet, vae

    def load(self, path: str, dtype: torch.dtype) -> Any:
        from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

        torch.manual_seed(0)
        # On the device from the start: 2.6 billion random numbers take a minute on a CPU.
        with torch.device(self._device):
            unet, vae = UNet2DConditionModel(**self._unet).to(dtype), AutoencoderKL(**self._vae)
        scale = 2 ** (len(self._vae["block_out_channels"]) - 1)
        parts = {"unet": unet, "vae": vae}
        scheduler = DDIMScheduler(**SCHEDULER)
        return SimpleNamespace(**parts, components=parts, scheduler=scheduler, vae_scale_factor=scale)

    def encode(self, pipe: Any, prompt: str) -> Conditioning:
        def drawn(text: str) -> tuple[torch.Tensor, torch.Tensor]:
            generator = torch.Generator().manual_seed(derive_seed("sdxl-random", text))
            shapes = (1, TOKENS, WIDTH), (1, POOLED)
            embeds, pooled = (torch.randn(shape, generator=generator).to(pipe.unet.dtype) for shape in shapes)
            return embeds, pooled

        (embeds, pooled), (negative_embeds, negative_pooled) = drawn(prompt), drawn("")
        return Conditioning(embeds, negative_embeds, pooled, negative_pooled)


def load_random_sdxl(
    config: RunConfig, device: torch.device, adapters: tuple[str, ...], family: RandomSDXL | None = None
) -> TextToImage:
    """What `rayalign.models.load.load_model` does, for a model that has no folder. `config.model.dtype` is not auto."""
    family, dtype = family or RandomSDXL(device), DTYPES[config.model.dtype]
    return assemble(family.load("", dtype), family, config, device, dtype, adapters)
