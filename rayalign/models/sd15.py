"""Stable Diffusion 1.x: one CLIP text encoder, no pooled embedding, a VAE that is safe in half precision."""

from __future__ import annotations

from typing import Any, Literal

import torch

from rayalign.models.conditioning import Conditioning


class SD15:
    name = "sd15"
    pipeline_class = "StableDiffusionPipeline"
    denoiser_part = "unet"
    latent_argument = "sample"
    process: Literal["ddim", "flow"] = "ddim"
    required: tuple[str, ...] = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")

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
