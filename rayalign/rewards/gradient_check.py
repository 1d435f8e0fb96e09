"""Whether a scorer's `score_and_grad` is the slope of its `score`, told from its answers alone.

Shape letters: B images, C H W channels, height, width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from rayalign.rewards.answer_form import form_problem

# Pixels are moved by at most these. Agreement at one will do: large steps curve (or cross the kinks of a ReLU network,
# hence the smallest), small ones drown in rounding.
AMPLITUDES = (0.02, 0.005, 1e-3, 2e-4, 3e-5)
TOLERANCE = 0.05  # of the slope; wrong gradients are off by a factor, a sign, or in direction


def gradient_problems(scorer: Any, images_BCHW: np.ndarray, prompts: list[str]) -> Iterator[str]:
    """What is wrong with `score_and_grad`, each with what to do. Ends at what makes nonsense of the rest.

    Args:
        scorer: a differentiable one whose `score` is in order.
        images_BCHW: float32, clear of 0 and 1 by more than the largest amplitude and by bicubic's overshoot.
        prompts: of the images.
    """
    what = f"{len(images_BCHW)} images of {images_BCHW.shape[2]} x {images_BCHW.shape[3]}"
    try:
        scores, grad = scorer.score_and_grad(images_BCHW.copy(), list(prompts))
    except Exception as error:  # whatever a user's scorer raises
        yield f"score_and_grad raised {type(error).__name__}: {error}; give (scores, gradients), two arrays"
        return
    shapes = ((len(images_BCHW),), images_BCHW.shape)
    for part, value, shape in zip(("scores", "gradient"), (scores, grad), shapes, strict=True):
        if problem := form_problem(f"score_and_grad's {part}", value, shape, what):
            yield problem
            return
    plain = scorer.score(images_BCHW.copy(), list(prompts))
    if not np.allclose(scores, plain, rtol=1e-5, atol=1e-6):
        yield f"score_and_grad gives scores {scores}, score gives {plain}; make them one computation"
    if not np.isfinite(grad).all():
        yield "the gradient holds NaN or infinity on plain noise around grey; look for sqrt or norm at 0"
        return
    yield from _company_problems(scorer, images_BCHW, prompts, grad)
    yield from _slope_problems(scorer, images_BCHW, prompts, grad)


def _company_problems(scorer: Any, images_BCHW: np.ndarray, prompts: list[str], grad: np.ndarray) -> Iterator[str]:
    _, alone = scorer.score_and_grad(images_BCHW[:1].copy(), prompts[:1])
    if np.abs(alone - grad[:1]).max() > 1e-4 * np.abs(grad[:1]).max():
        yield (
            f"the gradient of an image depends on the images beside it: its largest entry is {np.abs(alone).max():.3g} "
            f"alone, {np.abs(grad[:1]).max():.3g} among {len(images_BCHW)}; take the gradient of the sum of the "
            f"scores, not of their mean"
        )


def _slope_problems(scorer: Any, images_BCHW: np.ndarray, prompts: list[str], grad: np.ndarray) -> Iterator[str]:
    """Central differences along the gradient, where all of it counts, and along noise, where what it lacks shows."""
    size_B = np.abs(grad).max(axis=(1, 2, 3), keepdims=True)
    noise = np.random.default_rng(1).choice([-1.0, 1.0], size=images_BCHW.shape)
    along_grad = np.where(size_B > 0, grad / np.maximum(size_B, np.finfo(np.float32).tiny), noise)
    for name, direction in (("along itself", along_grad), ("along random noise", noise)):
        ratio, expected, found = _worst_slope(scorer, images_BCHW, prompts, grad, direction)
        if ratio > 1:
            cut = " It is zero: is the graph cut (no_grad, detach, rounding to uint8)?" if not grad.any() else ""
            yield (
                f"the gradient disagrees with finite differences: {name} it says a slope of {expected:.4g}, "
                f"(score(x + h) - score(x - h)) / 2h is {found:.4g}.{cut} Give d score / d image of each image's own "
                f"score, for the pixels as they were given (0 to 1, before any resize or normalisation)"
            )
            return


def _worst_slope(
    scorer: Any, images_BCHW: np.ndarray, prompts: list[str], grad: np.ndarray, direction: np.ndarray
) -> tuple[float, float, float]:
    """(difference over what is allowed, slope by the gradient, slope measured) of the image that agrees least."""
    axes = (1, 2, 3)
    expected_B = (grad.astype(np.float64) * direction).sum(axis=axes)
    # What a direction of this length could have given: the slope itself may be near 0 by chance.
    scale_B = np.sqrt((grad.astype(np.float64) ** 2).sum(axis=axes) * (direction**2).mean(axis=axes))
    best_B = np.full(len(images_BCHW), np.inf)
    found_B = np.zeros(len(images_BCHW))
    for amplitude in AMPLITUDES:
        ahead, behind = (
            scorer.score((images_BCHW + sign * amplitude * direction).astype(np.float32), list(prompts)).astype(float)
            for sign in (1, -1)
        )
        slope_B = (ahead - behind) / (2 * amplitude)
        rounding_B = 8 * np.spacing(np.maximum(np.abs(ahead), np.abs(behind)).astype(np.float32)) / amplitude
        allowed_B = TOLERANCE * np.maximum(scale_B, np.abs(expected_B))
        ratio_B = np.abs(slope_B - expected_B) / (allowed_B + rounding_B)
        if amplitude < AMPLITUDES[0]:  # a step whose rounding would pass any slope says nothing
            ratio_B = np.where(rounding_B < allowed_B, ratio_B, np.inf)
        found_B = np.where(ratio_B < best_B, slope_B, found_B)
        best_B = np.minimum(best_B, ratio_B)
    worst = int(best_B.argmax())
    return float(best_B[worst]), float(expected_B[worst]), float(found_B[worst])
