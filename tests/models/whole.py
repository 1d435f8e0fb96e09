"""Models that are tuned as a whole, for the tests of this folder."""

from __future__ import annotations

from typing import Any

import numpy as np

from rayalign.models.text_to_image import TextToImage
from rayalign.models.weight_sets import WeightArrays
from tests.toys import model_of

TRAINER, ACTOR = ("policy", "reference"), ("policy",)


def whole_model(path: str, adapters: tuple[str, ...] = TRAINER, copies_on: str = "device", **model: Any) -> TextToImage:
    """A fresh model on the CPU whose every weight is tuned; `model` are further settings of that group."""
    return model_of(path, adapters, model={"tuning": {"kind": "full", "copies_on": copies_on}} | model)


def moved(arrays: WeightArrays, seed: int, scale: float) -> WeightArrays:
    """Each weight moved by noise of `scale`."""
    draw = np.random.default_rng(seed)
    return {name: (v + scale * draw.standard_normal(v.shape)).astype(np.float32) for name, v in arrays.items()}
