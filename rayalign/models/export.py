"""A policy as the file that every diffusers user can load: `pipe.load_lora_weights(folder)`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from rayalign.models.family import Family
from rayalign.models.weight_sets import LoraArrays

LORA_FILE = "pytorch_lora_weights.safetensors"


def save_lora(folder: Path, family: Family, arrays: LoraArrays) -> Path:
    """Writes pytorch_lora_weights.safetensors with diffusers' own writer. Alpha equals rank, so the scale is 1."""
    import diffusers

    layers = {f"{name}.weight": torch.from_numpy(np.array(value)) for name, value in arrays.items()}
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = getattr(diffusers, family.pipeline_class)
    pipeline.save_lora_weights(folder, unet_lora_layers=layers, weight_name=LORA_FILE, safe_serialization=True)
    return folder / LORA_FILE
