"""A ScoreFn that keeps count of what one ticket's images scored, for running statistics and call-outs."""

from __future__ import annotations

from typing import cast

import numpy as np

from rayalign.records import Scores
from rayalign.rewards.protocol import DifferentiableScoreFn, ScoreFn
from rayalign.rewards.statistics import Moments, bucket, merged, moments_of


class ScoreTally:
    """Passes calls on, one after the other as a ticket makes them, so that its sums are the same bits every time.

    Attributes:
        moments: by scorer, of every score that was given. Those that come with a gradient are of images that were
            scored before, and are left out.
    """

    def __init__(self, score: ScoreFn) -> None:
        self._score = score
        self.moments: dict[str, Moments] = {}

    async def __call__(self, images_BCHW: np.ndarray, prompts: list[str]) -> Scores:
        scores = await self._score(images_BCHW, prompts)
        seen = [bucket(image_CHW) for image_CHW in images_BCHW]
        for name, part_B in scores.parts.items():
            self.moments[name] = merged(self.moments.get(name, Moments()), moments_of(part_B, seen))
        return scores

    async def score_and_grad(self, images_BCHW: np.ndarray, prompts: list[str]) -> tuple[Scores, np.ndarray]:
        return await cast(DifferentiableScoreFn, self._score).score_and_grad(images_BCHW, prompts)
