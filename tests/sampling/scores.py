"""ScoreFns of known rules, for the tests of this folder."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from rayalign.records import Scores
from rayalign.rewards.local import LocalScoreFn
from rayalign.rewards.protocol import ScoreFn
from rayalign.rewards.stub import StubScorer

BRIGHTNESS = LocalScoreFn({"stub": (StubScorer(), 1.0)})


def answering(rule: Any) -> ScoreFn:
    """A ScoreFn from a rule: images -> float32 (B,). It yields, so that other tickets get their turn."""

    async def score(images_BCHW: np.ndarray, prompts: list[str]) -> Scores:
        await asyncio.sleep(0)
        total = np.asarray(rule(images_BCHW), dtype=np.float32)
        return Scores(total, {"stub": total})

    return score


class Recording:
    """Brightness, with every answer kept: (K B,) candidate by candidate of each call that scores K candidates."""

    def __init__(self) -> None:
        self.answers: list[np.ndarray] = []

    async def __call__(self, images_BCHW: np.ndarray, prompts: list[str]) -> Scores:
        scores = await BRIGHTNESS(images_BCHW, prompts)
        self.answers.append(scores.total_B)
        return scores

    def rewards_KB(self, call: int, samples: int = 2) -> np.ndarray:
        return self.answers[call].reshape(-1, samples)
