"""Stable Diffusion 1.x: one CLIP text encoder, no pooled embedding, a VAE that is safe in half precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from rayalign.models.conditioning import Conditioning
from rayalign.models.family import Config, Family, Published, Width, token_width
from rayalign.models.published import CLIP_L, VAE

UNET: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}


class SD15(Family):
    name = "sd15"
    pipeline_class = "StableDiffusionPipeline"
    denoiser_part = "unet"
    denoiser_class = "UNet2DConditionModel"
    latent_argument = "sample"
    process = "ddim"
    required = frozenset({"unet", "vae", "text_encoder", "tokenizer", "scheduler"})
    kohya_version = "sd_v1-5"
    published: ClassVar = {"stable-diffusion-v1-5/stable-diffusion-v1-5": Published(UNET, VAE, CLIP_L)}

    def load(self, path: str, dtype: torch.dtype) -> Any:
        from diffusers import StableDiffusionPipeline

        # The safety checker blackens pictures, which a scorer would then rank.
        return StableDiffusionPipeline.from_pretrained(
            path, torch_dtype=dtype, safety_checker=None, requires_safety_checker=False
        )

    def encode(self, pipe: Any, prompt: str) -> Conditioning:
        positive, negative = pipe.encode_prompt(
            prompt, device=pipe.text_encoder.device, num_images_per_prompt=1, do_classifier_free_guidance=True
        )
        return Conditioning(positive, negative)

    def denoiser_inputs(self, conditioning: Conditioning, negative: bool, height: int, width: int) -> dict[str, Any]:
        return {"encoder_hidden_states": conditioning.negative_embeds if negative else conditioning.embeds}

    def vae_dtype(self, dtype: torch.dtype) -> torch.dtype:
        return dtype

    def empty_text(self, denoiser: Any, empty: Callable[..., Tensor]) -> Conditioning:
        words = empty(77, denoiser.cross_attention_dim)
        return Conditioning(words, words)

    def widths(self, text: Sequence[Config], vae: Config, denoiser: Config) -> list[Width]:
        return [*super().widths(text, vae, denoiser), token_width(text, denoiser)]
