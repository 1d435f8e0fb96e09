"""What a scorer is, and what the sampler sees of it.

`Scorer` is the object that holds weights and lives in a replica. `ScoreFn` is all that the sampler knows: an
awaitable call. A Ray Serve handle, a scorer in this process and a lambda in a test all fit.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
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


@runtime_checkable
class TextEncoder(Protocol):
    """What a `Scorer` may do besides: encode a prompt apart from the image, once for all images of it.

    The service then has each prompt encoded by one replica only. A scorer that reads prompt and image together, or
    no prompt, has none of this.
    """

    num_text_runs: int  # times the text tower ran

    def missing_texts(self, prompts: Sequence[str]) -> list[str]:
        """Those of `prompts`, each once, that a score would have to encode first."""
        ...

    def encode_text(self, prompt: str) -> np.ndarray:
        """One prompt's encoding, of any shape; kept."""
        ...

    def keep_text(self, prompt: str, encoding: np.ndarray) -> None:
        """Keeps what `encode_text` of the same scorer gave elsewhere. A score by it has the same bits."""
        ...


# images float32 (B, 3, H, W) in [0, 1], prompts -> Scores. Failed entries come back as NaN, never as a number.
ScoreFn = Callable[[np.ndarray, list[str]], Awaitable[Scores]]


class DifferentiableScoreFn(Protocol):
    """A ScoreFn that gradient guidance can use."""

    def __call__(self, images_BCHW: np.ndarray, prompts: list[str]) -> Awaitable[Scores]: ...

    def score_and_grad(self, images_BCHW: np.ndarray, prompts: list[str]) -> Awaitable[tuple[Scores, np.ndarray]]:
        """Scores, and d total_b / d image_b, float32 (B, 3, H, W): of each image's own weighted sum. NaN if failed."""
        ...
