"""Shapes of the published models, for planning and for benchmarks with random weights: no hub is asked.

From the `config.json` files of stable-diffusion-v1-5, stable-diffusion-xl-base-1.0 and stable-diffusion-3-medium.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SD15_UNET: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}
SDXL_UNET: dict[str, Any] = {
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
SD3_TRANSFORMER: dict[str, Any] = {
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
VAE: dict[str, Any] = {
    "sample_size": 1024,
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "scaling_factor": 0.13025,
    "force_upcast": True,
}
SD3_VAE = VAE | {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}
CLIP_L, CLIP_G, T5_XXL = 123_060_480, 694_659_840, 4_762_310_656  # parameters of the text encoders


@dataclass(frozen=True)
class Published:
    """One model's shapes: `denoiser` and `vae` as their diffusers classes take them, text encoders by parameters."""

    family: str
    denoiser: dict[str, Any]
    vae: dict[str, Any]
    text_parameters: int


PUBLISHED: dict[str, Published] = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": Published("sd15", SD15_UNET, VAE, CLIP_L),
    "stabilityai/stable-diffusion-xl-base-1.0": Published("sdxl", SDXL_UNET, VAE, CLIP_L + CLIP_G),
    "stabilityai/stable-diffusion-3-medium-diffusers": Published(
        "sd3", SD3_TRANSFORMER, SD3_VAE, CLIP_L + CLIP_G + T5_XXL
    ),
}
