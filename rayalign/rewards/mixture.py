"""Several scorers make one number that ranks, and a failed one never does. Pure numpy."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from rayalign.errors import ScoringError
from rayalign.records import UNSCORED_STATUSES, Scores, Standard

OWN_SCALE = Standard(0.0, 1.0)


RAW: Mapping[str, Standard] = MappingProxyType({})
UNEXPLAINED: Mapping[str, str] = MappingProxyType({})
NOT_FINITE = "not finite"


def mix(
    weights: Mapping[str, float],
    parts: Mapping[str, np.ndarray],
    seconds: float = 0.0,
    standards: Mapping[str, Standard] = RAW,
    reasons: Mapping[str, str] = UNEXPLAINED,
) -> Scores:
    """total[b] = sum over s of weights[s] * (parts[s][b] - mean[s]) / std[s].

    Mean 0 and deviation 1 for a scorer without a standard: its own scale. A part without a weight is held out:
    reported, not summed. NaN or infinity in a weighted part makes the total of that entry NaN, whatever the weight,
    zero included, and stands as NaN in `parts`.

    Args:
        weights: factor of each guiding scorer.
        parts: scorer -> (B,), in the scorer's own scale; has every scorer of `weights`.
        seconds: passed on.
        standards: mean and deviation of each scorer that is put on the common scale.
        reasons: why a scorer gave nothing, of those that did not answer. The first one is an entry's reason.

    Raises:
        ScoringError: a weighted part is missing, or the parts differ in length.
    """
    missing = [name for name in weights if name not in parts]
    lengths = {name: np.shape(part_B) for name, part_B in parts.items()}
    if missing or not parts or len(set(lengths.values())) != 1:
        raise ScoringError(f"parts have shapes {lengths} and lack {missing}; give every scorer's (B,), B the same")
    parts = {name: finite_or_nan(part_B) for name, part_B in parts.items()}
    total_B = np.zeros(next(iter(lengths.values())), dtype=np.float64)
    for name, weight in weights.items():
        mean, std = standards.get(name, OWN_SCALE)
        total_B = total_B + weight * ((parts[name].astype(np.float64) - mean) / std)
    total_B = finite_or_nan(total_B)
    reason_B = np.full(len(total_B), "", dtype=object)
    for name in weights:
        reason_B[np.isnan(parts[name]) & (reason_B == "")] = unscored_status(reasons.get(name) or NOT_FINITE)
    reason_B[np.isnan(total_B) & (reason_B == "")] = unscored_status(NOT_FINITE)  # a sum that float32 cannot hold
    return Scores(total_B, parts, seconds, reason_B)


def unscored_status(reason: str) -> str:
    """What a pair is counted under: the one of `records.UNSCORED_STATUSES` that a failure's reason belongs to."""
    status = f"score_{'raised' if reason.startswith('raised') else reason.replace(' ', '_')}"
    return status if status in UNSCORED_STATUSES else "score_unserved"


def finite_or_nan(values: np.ndarray) -> np.ndarray:
    """float32 copy with every infinity (also one that float32 makes) as NaN: one spelling of "no score"."""
    with np.errstate(over="ignore"):
        values = np.asarray(values).astype(np.float32)
    return np.where(np.isfinite(values), values, np.float32("nan"))


def check_answer(scores: object, num_images: int) -> np.ndarray:
    """A scorer's answer as float32 (B,).

    Raises:
        ScoringError: it is not one number for each image; whose score is whose is then a guess.
    """
    scores_B = np.asarray(scores)
    if scores_B.shape != (num_images,) or not np.issubdtype(scores_B.dtype, np.number):
        raise ScoringError(f"gave {scores_B.dtype} of shape {scores_B.shape} for {num_images} images")
    return scores_B.astype(np.float32)


def mix_gradients(
    weights: Mapping[str, float], grads: Mapping[str, np.ndarray], standards: Mapping[str, Standard] = RAW
) -> np.ndarray:
    """d total_b / d image_b = sum over s of weights[s] grads[s][b] / std[s], float32 (B, 3, H, W).

    NaN where a scorer failed.
    """
    factors = {name: weight / standards.get(name, OWN_SCALE).std for name, weight in weights.items()}
    total = sum(factor * grads[name].astype(np.float64) for name, factor in factors.items())
    return np.asarray(total, dtype=np.float32)
