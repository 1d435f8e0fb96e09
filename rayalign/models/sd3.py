"""Stable Diffusion 3 and 3.5: a transformer, two CLIP text encoders and a T5 that may be left out, rectified flow."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from rayalign.models.conditioning import Conditioning

T5_PARTS = ("text_encoder_3", "tokenizer_3")
"""9 GB of the hub's folder in half precision. Where they are missing the pipeline puts zeros in their place."""

T5_TOKENS = 256
"""What the pipeline pads T5's part of a prompt to by default; what is drawn depends on it, since nothing masks it."""


class SD3:
    name = "sd3"
    pipeline_class = "StableDiffusion3Pipeline"
    denoiser_part = "transformer"
    latent_argument = "hidden_states"
    process: Literal["ddim", "flow"] = "flow"
    required: tuple[str, ...] = (
        "transformer",
        "vae",
        "text_encoder",
        "text_encoder_2",
        "tokenizer",
        "tokenizer_2",
        "scheduler",
    )

    def load(self, path: str, dtype: torch.dtype) -> Any:
        from diffusers import StableDiffusion3Pipeline

        folder = Path(path)
        left_out = {part: None for part in T5_PARTS if folder.is_dir() and not (folder / part).is_dir()}
        return StableDiffusion3Pipeline.from_pretrained(path, torch_dtype=dtype, **left_out)

    def encode(self, pipe: Any, prompt: str) -> Conditioning:
        tokenizer = pipe.tokenizer_3
        positive, negative, pooled, negative_pooled = pipe.encode_prompt(
            prompt,
            None,
            None,
            device=pipe.text_encoder.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=True,
            max_sequence_length=T5_TOKENS if tokenizer is None else min(T5_TOKENS, tokenizer.model_max_length),
        )
        return Conditioning(positive, negative, pooled, negative_pooled)

    def denoiser_inputs(self, conditioning: Conditioning, negative: bool, height: int, width: int) -> dict[str, Any]:
        return {
            "encoder_hidden_states": conditioning.negative_embeds if negative else conditioning.embeds,
            "pooled_projections": conditioning.negative_pooled if negative else conditioning.pooled,
        }

    def vae_dtype(self, dtype: torch.dtype) -> torch.dtype:
        # Its config says `force_upcast`, and the same decoder in FLUX comes out black in float16.
        return torch.float32 if dtype == torch.float16 else dtype
