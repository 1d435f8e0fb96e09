"""Shapes that published models of several families share, from their `config.json` files: no hub is asked.

Each family's file has the rest; planning and benchmarks with random weights read them.
"""

from __future__ import annotations

from typing import Any

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
CLIP_L, CLIP_G, T5_XXL = 123_060_480, 694_659_840, 4_762_310_656  # parameters of the text encoders
