"""JPEG compressibility and incompressibility: rewards that need no model, no prompt and no download."""

from __future__ import annotations

import io
from typing import ClassVar

import numpy as np
from PIL import Image

BYTES_PER_KB = 1000  # as in DDPO's reward; with 1024 the scores would not compare with published ones


class JpegScorer:
    """Minus the size of the image as a JPEG: smooth pictures score high.

    See "Training Diffusion Models with Reinforcement Learning" by Black et al.
    (https://arxiv.org/abs/2305.13301). Otherwise Pillow's defaults (4:2:0 chroma, no optimisation), which
    decide the size too.
    """

    differentiable: ClassVar[bool] = False
    needs_prompt: ClassVar[bool] = False
    unit: ClassVar[str] = "minus kB (1000 bytes) as JPEG of quality 95"
    licence: ClassVar[str] = "no weights"

    def __init__(self, quality: int = 95) -> None:
        if not 1 <= quality <= 100:
            raise ValueError(f"quality = {quality}: set it between 1 and 100")
        self.quality = quality

    def score(self, images_BCHW: np.ndarray, prompts: list[str]) -> np.ndarray:
        """float32 (B, 3, H, W) in [0, 1] -> float32 (B,). A NaN pixel makes its image's score NaN."""
        return np.array([self._score_one(image_CHW) for image_CHW in images_BCHW], dtype=np.float32)

    def _score_one(self, image_CHW: np.ndarray) -> float:
        if not np.isfinite(image_CHW).all():
            return float("nan")  # cast to uint8 it would become some colour, and then a number
        with io.BytesIO() as file:
            Image.fromarray(to_uint8(image_CHW)).save(file, format="JPEG", quality=self.quality)
            return -file.tell() / BYTES_PER_KB


class JpegLargeScorer(JpegScorer):
    """Plus that size, the paper's incompressibility: busy pictures score high."""

    unit: ClassVar[str] = "kB (1000 bytes) as JPEG of quality 95"

    def score(self, images_BCHW: np.ndarray, prompts: list[str]) -> np.ndarray:
        """float32 (B, 3, H, W) in [0, 1] -> float32 (B,). A NaN pixel makes its image's score NaN."""
        return -super().score(images_BCHW, prompts)


def to_uint8(image_CHW: np.ndarray) -> np.ndarray:
    """float (3, H, W) in [0, 1] -> uint8 (H, W, 3), to the nearest level; values outside are clamped."""
    levels = np.rint(np.clip(image_CHW, 0.0, 1.0) * 255.0)
    return np.ascontiguousarray(levels.astype(np.uint8).transpose(1, 2, 0))
