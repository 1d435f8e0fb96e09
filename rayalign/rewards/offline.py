"""Scores of pictures of any sizes by one scorer: a failure becomes NaN and a reason, and takes nobody with it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from rayalign.errors import ScoringError
from rayalign.rewards.mixture import check_answer, finite_or_nan
from rayalign.rewards.protocol import Scorer

NO_PROMPT = "no prompt"
NOT_FINITE = "not finite"
MAX_REASON = 300
ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # of an object, in messages about it


def score_pictures(
    scorer: Scorer, images: Sequence[np.ndarray | None], prompts: Sequence[str | None], batch: int
) -> tuple[np.ndarray, list[str]]:
    """Scores float32 (N,), NaN where there is none, and why, empty where there is one.

    Args:
        images: uint8 (H, W, 3); None has no score, and no reason here.
        prompts: of the images; None where it has none, a failure for a scorer that needs one.
        batch: images of one size that the scorer gets at once.
    """
    scores_N, reasons = np.full(len(images), np.nan, dtype=np.float32), [""] * len(images)
    rows = []
    for row, image in enumerate(images):
        if image is not None and scorer.needs_prompt and prompts[row] is None:
            reasons[row] = NO_PROMPT
        elif image is not None:
            rows.append(row)
    for chunk in _of_one_size(images, rows, batch):
        stacked = np.stack([np.asarray(images[row]) for row in chunk]).transpose(0, 3, 1, 2).astype(np.float32) / 255
        answers, said = _answered(scorer, np.ascontiguousarray(stacked), [prompts[row] or "" for row in chunk])
        for row, score, reason in zip(chunk, answers, said, strict=True):
            scores_N[row], reasons[row] = score, reason
    return scores_N, reasons


def _of_one_size(images: Sequence[np.ndarray | None], rows: Sequence[int], batch: int) -> Iterator[list[int]]:
    by_size: dict[tuple[int, ...], list[int]] = {}
    for row in rows:
        by_size.setdefault(np.asarray(images[row]).shape, []).append(row)
    for same in by_size.values():
        yield from (same[start : start + batch] for start in range(0, len(same), batch))


def _answered(scorer: Scorer, images_BCHW: np.ndarray, prompts: list[str]) -> tuple[np.ndarray, list[str]]:
    """All at once; if that fails, each alone: one bad picture must not take its company with it."""
    try:
        scores_B = finite_or_nan(check_answer(scorer.score(images_BCHW, prompts), len(prompts)))
    except Exception as error:  # whatever a scorer raises becomes a reason
        if len(prompts) > 1:
            alone = [_answered(scorer, images_BCHW[row : row + 1], [prompt]) for row, prompt in enumerate(prompts)]
            return np.concatenate([scores for scores, _ in alone]), [said[0] for _, said in alone]
        reason = str(error) if isinstance(error, ScoringError) else f"raised {type(error).__name__}: {error}"
        return np.full(1, np.nan, dtype=np.float32), [one_line(reason)]
    return scores_B, ["" if np.isfinite(score) else NOT_FINITE for score in scores_B]


def one_line(reason: str) -> str:
    """A reason that a table can hold: short, without what separates reasons, the same each time."""
    return ADDRESS.sub("", " ".join(reason.split()).replace("; ", ", "))[:MAX_REASON]
