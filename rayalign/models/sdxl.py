"""Stable Diffusion XL: two text encoders, a pooled embedding, time ids, a VAE that overflows in float16."""

from __future__ import annotations

from typing import Any, Literal

import torch

from rayalign.models.conditioning import Conditioning


class SDXL:
    name = "sdxl"
    pipeline_class = "StableDiffusionXLPipeline"
    denoiser_part = "unet"
    latent_argument = "sample"
    process: Literal["ddim", "flow"] = "ddim"
    required: tuple[str, ...] = (
        "unet",
        "vae",
        "text_encoder",
        "text_encoder_2",
        "tokenizer",
        "tokenizer_2",
        "scheduler",
    )

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
