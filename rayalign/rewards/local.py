"""A ScoreFn whose scorers run in this process: for tests, benchmarks and runs without Ray."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from rayalign.errors import ScoringError
from rayalign.records import Scores, Standard
from rayalign.rewards.mixture import check_answer, mix, mix_gradients
from rayalign.rewards.protocol import Scorer

logger = logging.getLogger(__name__)

NOTHING_HELD_OUT: Mapping[str, Scorer] = MappingProxyType({})


class LocalScoreFn:
    """Scores in this process and blocks it. No Ray, no retries.

    An exception, or an answer of the wrong length, makes that scorer's entries NaN and is logged.

    Args:
        scorers: guiding scorers and their weights.
        heldout: scorers measured beside them: in `parts`, never in the total.

    Attributes:
        standards: of scorers on the common scale, see `mix`; none unless its user sets them.
    """

    def __init__(
        self, scorers: Mapping[str, tuple[Scorer, float]], heldout: Mapping[str, Scorer] = NOTHING_HELD_OUT
    ) -> None:
        self._weights = {name: weight for name, (_, weight) in scorers.items()}
        self._guiding: dict[str, Any] = {name: scorer for name, (scorer, _) in scorers.items()}
        self._heldout = dict(heldout)
        self.standards: dict[str, Standard] = {}

    async def __call__(self, images_BCHW: np.ndarray, prompts: list[str]) -> Scores:
        """float32 images (B, 3, H, W) in [0, 1] and B prompts -> Scores."""
        start, asked = time.perf_counter(), self._guiding | self._heldout
        reasons: dict[str, str] = {}
        parts = {}
        for name, scorer in asked.items():
            parts[name], reasons[name] = _score_or_nan(name, scorer, images_BCHW, prompts)
        return mix(self._weights, parts, time.perf_counter() - start, self.standards, reasons)

    async def score_and_grad(self, images_BCHW: np.ndarray, prompts: list[str]) -> tuple[Scores, np.ndarray]:
        """Scores of the guiding scorers, and d total_b / d image_b (B, 3, H, W)."""
        start, answers, reasons = time.perf_counter(), {}, {}
        for name, scorer in self._guiding.items():
            try:
                scores_B, grads_BCHW = scorer.score_and_grad(images_BCHW, prompts)
                answers[name] = check_answer(scores_B, len(images_BCHW)), grads_BCHW
            except Exception as error:  # as in `_score_or_nan`
                reasons[name] = _log_failure(name, images_BCHW, error)
                nothing = np.full(len(images_BCHW), np.nan, dtype=np.float32)
                answers[name] = nothing, np.full_like(images_BCHW, np.nan)
        parts, grads = ({name: answer[which] for name, answer in answers.items()} for which in (0, 1))
        scores = mix(self._weights, parts, time.perf_counter() - start, self.standards, reasons)
        return scores, mix_gradients(self._weights, grads, self.standards)


def _score_or_nan(name: str, scorer: Scorer, images_BCHW: np.ndarray, prompts: list[str]) -> tuple[np.ndarray, str]:
    try:
        return check_answer(scorer.score(images_BCHW, prompts), len(images_BCHW)), ""
    except Exception as error:  # whatever a user's scorer raises: the contract turns it into NaN
        reason = _log_failure(name, images_BCHW, error)
        return np.full(len(images_BCHW), np.nan, dtype=np.float32), reason


def _log_failure(name: str, images_BCHW: np.ndarray, error: Exception) -> str:
    """The reason to count by."""
    logger.warning("scorer %s failed on %d images: %s: %s", name, len(images_BCHW), type(error).__name__, error)
    return "wrong length" if isinstance(error, ScoringError) else f"raised {type(error).__name__}"
