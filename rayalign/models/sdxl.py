"""Stable Diffusion XL: two text encoders, a pooled embedding, time ids, a VAE that overflows in float16."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from rayalign.models.conditioning import Conditioning
from rayalign.models.family import Config, Family, Published, Width, token_width
from rayalign.models.published import CLIP_G, CLIP_L, VAE

UNET: dict[str, Any] = {
    "sample_size": 128,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),  # diffusers' misnomer: these are numbers of heads, of 64 channels each
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}


class SDXL(Family):
    name = "sdxl"
    pipeline_class = "StableDiffusionXLPipeline"
    denoiser_part = "unet"
    denoiser_class = "UNet2DConditionModel"
    latent_argument = "sample"
    process = "ddim"
    required = frozenset({"unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"})
    kohya_version = "sdxl_base_v1-0"
    published: ClassVar = {"stabilityai/stable-diffusion-xl-base-1.0": Published(UNET, VAE, CLIP_L + CLIP_G)}

    def load(self, path: str, dtype: torch.dtype) -> Any:
        from diffusers import StableDiffusionXLPipeline

        return StableDiffusionXLPipeline.from_pretrained(path, torch_dtype=dtype, add_watermarker=False)

    def encode(self, pipe: Any, prompt: str) -> Conditioning:
        positive, negative, pooled, negative_pooled = pipe.encode_prompt(
            prompt, device=pipe.text_encoder.device, num_images_per_prompt=1, do_classifier_free_guidance=True
        )
        return Conditioning(positive, negative, pooled, negative_pooled)

    def denoiser_inputs(self, conditioning: Conditioning, negative: bool, height: int, width: int) -> dict[str, Any]:
        embeds = conditioning.negative_embeds if negative else conditioning.embeds
        pooled = conditioning.negative_pooled if negative else conditioning.pooled
        # (original height, width, crop top, left, target height, width): an uncropped picture of its own size, which
        # is what the pipeline itself assumes by default.
        time_ids = torch.tensor([[height, width, 0, 0, height, width]], dtype=embeds.dtype, device=embeds.device)
        added = {"text_embeds": pooled, "time_ids": time_ids.expand(len(embeds), -1)}
        return {"encoder_hidden_states": embeds, "added_cond_kwargs": added}

    def vae_dtype(self, dtype: torch.dtype) -> torch.dtype:
        # Activations of the SDXL VAE pass 65504, float16's largest number, and come out as NaN.
        return torch.float32 if dtype == torch.float16 else dtype

    def empty_text(self, denoiser: Any, empty: Callable[..., Tensor]) -> Conditioning:
        words = empty(77, denoiser.cross_attention_dim)
        # What the added embedding takes, less its six sizes.
        pooled = empty(denoiser.projection_class_embeddings_input_dim - 6 * denoiser.addition_time_embed_dim)
        return Conditioning(words, words, pooled, pooled)

    def widths(self, text: Sequence[Config], vae: Config, denoiser: Config) -> list[Width]:
        return [*super().widths(text, vae, denoiser), token_width(text, denoiser)]
