"""Stable Diffusion 3 and 3.5: a transformer, two CLIP text encoders and a T5 that may be left out, rectified flow."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from rayalign.models.conditioning import Conditioning
from rayalign.models.family import Config, Family, Published, Width
from rayalign.models.published import CLIP_G, CLIP_L, T5_XXL, VAE

T5_PARTS = ("text_encoder_3", "tokenizer_3")
"""9 GB of the hub's folder in half precision. Where they are missing the pipeline puts zeros in their place."""

T5_TOKENS = 256
"""What the pipeline pads T5's part of a prompt to by default; what is drawn depends on it, since nothing masks it."""

MEDIUM: dict[str, Any] = {
    "sample_size": 128,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 24,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
    "joint_attention_dim": 4096,
    "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048,
    "pos_embed_max_size": 192,
}
MEDIUM_35 = MEDIUM | {
    "pos_embed_max_size": 384,
    "qk_norm": "rms_norm",
    "dual_attention_layers": tuple(range(13)),
}
LARGE_35 = MEDIUM | {
    "num_layers": 38,
    "num_attention_heads": 38,
    "caption_projection_dim": 2432,
    "qk_norm": "rms_norm",
}
SD3_VAE = VAE | {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
TEXT = CLIP_L + CLIP_G + T5_XXL


class SD3(Family):
    name = "sd3"
    pipeline_class = "StableDiffusion3Pipeline"
    denoiser_part = "transformer"
    denoiser_class = "SD3Transformer2DModel"
    latent_argument = "hidden_states"
    process = "flow"
    required = frozenset(
        {"transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"}
    )
    published: ClassVar = {
        "stabilityai/stable-diffusion-3-medium-diffusers": Published(MEDIUM, SD3_VAE, TEXT),
        "stabilityai/stable-diffusion-3.5-medium": Published(MEDIUM_35, SD3_VAE, TEXT),
        "stabilityai/stable-diffusion-3.5-large": Published(LARGE_35, SD3_VAE, TEXT),
    }

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

    def empty_text(self, denoiser: Any, empty: Callable[..., Tensor]) -> Conditioning:
        words, pooled = empty(77 + T5_TOKENS, denoiser.joint_attention_dim), empty(denoiser.pooled_projection_dim)
        return Conditioning(words, words, pooled, pooled)

    def widths(self, text: Sequence[Config], vae: Config, denoiser: Config) -> list[Width]:
        pooled = sum(one.get("projection_dim", 0) for one in text[:2])
        found = super().widths(text, vae, denoiser)
        found.append(Width("text_encoder", pooled, denoiser.get("pooled_projection_dim"), "pooled numbers"))
        if len(text) > 2:
            wide, taken = text[2].get("d_model"), denoiser.get("joint_attention_dim")
            found.append(Width("text_encoder_3", wide, taken, "numbers a token"))
        return found
