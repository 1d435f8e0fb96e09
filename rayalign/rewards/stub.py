"""A scorer without a model, for tests and overhead benchmarks: known values, slow or failing as asked."""

from __future__ import annotations

import time
from typing import ClassVar, Literal

import numpy as np

CHANNEL_WEIGHTS = {
    "brightness": (1 / 3, 1 / 3, 1 / 3),  # in [0, 1]: 0 is black, 1 is white
    "red": (1.0, -0.5, -0.5),  # in [-1, 1]: 0 is grey
}
FAILURES = ("never", "construct", "raise", "short", "nan", "inf")


class StubScorer:
    """Mean over the pixels of a weighted sum of the channels, so its gradient is the same for every image.

    Args:
        rule: `brightness` or `red`.
        seconds: slept per call, or per image where `per` says so.
        fail: `never`; `construct` raises in the constructor; `raise` raises when asked; `short` leaves one
            score out; `nan` and `inf` spoil the first score of a call.
    """

    differentiable: ClassVar[bool] = True
    needs_prompt: ClassVar[bool] = False
    unit: ClassVar[str] = "mean pixel value: brightness in [0, 1], or red in [-1, 1]"
    licence: ClassVar[str] = "no weights"

    def __init__(
        self,
        rule: Literal["brightness", "red"] = "brightness",
        seconds: float = 0.0,
        per: Literal["call", "image"] = "call",
        fail: Literal["never", "construct", "raise", "short", "nan", "inf"] = "never",
    ) -> None:
        if rule not in CHANNEL_WEIGHTS:
            raise ValueError(f"rule = {rule!r}: set one of {', '.join(CHANNEL_WEIGHTS)}")
        if per not in ("call", "image"):
            raise ValueError(f"per = {per!r}: set call or image")
        if fail not in FAILURES:
            raise ValueError(f"fail = {fail!r}: set one of {', '.join(FAILURES)}")
        if fail == "construct":
            raise RuntimeError("the stub was asked to fail in its constructor")
        self.weights_C = np.array(CHANNEL_WEIGHTS[rule])
        self.seconds, self.per, self.fail = seconds, per, fail

    def score(self, images_BCHW: np.ndarray, prompts: list[str]) -> np.ndarray:
        """float32 (B, 3, H, W) in [0, 1] -> float32 (B,)."""
        time.sleep(self.seconds * (len(images_BCHW) if self.per == "image" else 1))
        if self.fail == "raise":
            raise RuntimeError("the stub was asked to fail")
        scores_B = np.array([self._score_one(image_CHW) for image_CHW in images_BCHW], dtype=np.float32)
        if self.fail in ("nan", "inf"):
            scores_B[:1] = float(self.fail)
        return scores_B[1:] if self.fail == "short" else scores_B

    def _score_one(self, image_CHW: np.ndarray) -> float:
        """One image at a time, so that the order of the sum cannot depend on the other images of the call."""
        return float(image_CHW.astype(np.float64).mean(axis=(1, 2)) @ self.weights_C)

    def score_and_grad(self, images_BCHW: np.ndarray, prompts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Scores (B,) and d score / d image (B, 3, H, W), both float32."""
        height, width = images_BCHW.shape[-2:]
        grad_C = (self.weights_C / (height * width)).astype(np.float32)
        grad_BCHW = np.broadcast_to(grad_C[:, None, None], images_BCHW.shape).copy()
        return self.score(images_BCHW, prompts), grad_BCHW
