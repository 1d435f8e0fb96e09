"""What a scorer is, and what the sampler sees of it.

`Scorer` is the object that holds weights and lives in a replica. `ScoreFn` is all that the sampler knows: an
awaitable call. A Ray Serve handle, a scorer in this process and a lambda in a test all fit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np

from rayalign.records import Scores


@runtime_checkable
class Scorer(Protocol):
    """Scores images by prompt. Higher is better.

    A class may state more, see `rayalign.rewards.table.ScorerFacts`: `num_tokens`, `licence`, `weights`,
    `runtime_env` and `default_options`. `rayalign.rewards.testing.check_scorer_conforms` tries one out and says in
    words what is wrong with it.
    """

    differentiable: ClassVar[bool]  # answers `score_and_grad` too
    needs_prompt: ClassVar[bool]
    unit: ClassVar[str]  # scale and range, for reports: "-kB at quality 95"

    def score(self, images_BCHW: np.ndarray, prompts: list[str]) -> np.ndarray:
        """float32 images in [0, 1] and their prompts -> float32 (B,).

        A score must not depend on the other images of the call (run towers in chunks of one fixed size).
        """
        ...


# images float32 (B, 3, H, W) in [0, 1], prompts -> Scores. Failed entries come back as NaN, never as a number.
ScoreFn = Callable[[np.ndarray, list[str]], Awaitable[Scores]]


class DifferentiableScoreFn(Protocol):
    """A ScoreFn that gradient guidance can use."""

    def __call__(self, images_BCHW: np.ndarray, prompts: list[str]) -> Awaitable[Scores]: ...

    def score_and_grad(self, images_BCHW: np.ndarray, prompts: list[str]) -> Awaitable[tuple[Scores, np.ndarray]]:
        """Scores, and d total_b / d image_b, float32 (B, 3, H, W): of each image's own weighted sum. NaN if failed."""
        ...
