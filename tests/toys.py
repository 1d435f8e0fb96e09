"""What tests of models, sampling and learning share: loaded toys, and LoRA weights that do something."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rayalign.config import RunConfig
from rayalign.models.load import load_model
from rayalign.models.text_to_image import TextToImage
from rayalign.models.weight_sets import WeightArrays

torch.set_num_threads(1)

TOYS = ("toy-sd15", "toy-sdxl")
PROMPTS = ["a large red circle on a white ground", "a small blue square on a black ground"]
SEEDS = [11, 12]


def model_of(path: str, adapters: tuple[str, ...] = ("policy", "reference"), **changes: Any) -> TextToImage:
    """A fresh model on the CPU. `changes` are groups of RunConfig, `model` without its path."""
    changes["model"] = {"path": path} | changes.get("model", {})
    return load_model(RunConfig.model_validate(changes), "cpu", adapters)


def nudged(model: TextToImage, seed: int, scale: float = 0.02) -> WeightArrays:
    """LoRA weights of this model's shape whose B is drawn with `scale`, so that they change its answers."""
    draw = np.random.default_rng(seed)
    return {
        name: (value if name.endswith("lora_A") else scale * draw.standard_normal(value.shape)).astype(np.float32)
        for name, value in model.weights.state("policy").items()
    }


def answer(model: TextToImage, weights: Any = "policy") -> torch.Tensor:
    """The guided prediction on a fixed input, without gradients."""
    x_t = torch.randn((2, *model.latent_shape), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        return model.denoise(x_t, torch.tensor([501, 51]), model.encode(PROMPTS), weights)
