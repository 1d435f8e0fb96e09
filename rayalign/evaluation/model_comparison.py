"""Several models against their base, picture by picture: what each scorer says, by category, and what changed beside.

Shape letters: N pictures. All sets show the same prompts and seeds, row by row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import wilcoxon

from rayalign.evaluation.drift import drift
from rayalign.evaluation.image_set import ImageSet, require_same_rows
from rayalign.evaluation.intervals import change, mean_interval, win_rate

Report = dict[str, Any]


def compare_models(
    sets: Mapping[str, ImageSet], base: str, guiding: Sequence[str], units: Mapping[str, str], categories: list[str]
) -> Report:
    """Everything an evaluation says of its pictures.

    Args:
        sets: label -> pictures, the base's among them.
        guiding: scorers that a model was tuned on; all others are held out.
        categories: (N,), of each row's prompt, "" where the set has none.

    Returns {"base": ..., "models": {label: {"scores": {scorer: entry}, "drift": ..., "categories": {category: {scorer:
    entry}}}}}. An entry of the base has "mean" and "median"; of a model also "change", "win_rate", "ties", "p_value"
    (see `against`).
    Raises ValueError unless all show the same rows.
    """
    first = sets[base]
    report: Report = {"base": {"scores": {name: _alone(first, name) for name in first.scores}}, "models": {}}
    for entry_name, entry in report["base"]["scores"].items():
        entry |= {"guiding": entry_name in guiding, "unit": units.get(entry_name, "")}
    for label, images in sets.items():
        if label == base:
            continue
        require_same_rows(first, images)
        report["models"][label] = {
            "scores": {name: against(first, images, name) for name in first.scores},
            "drift": drift(first, images),
            "categories": _by_category(first, images, categories),
        }
    return report


def against(base: ImageSet, tuned: ImageSet, scorer: str) -> dict[str, Any]:
    """One scorer on two sets of the same rows.

    Returns mean (with interval) and median of the tuned set; change, win_rate (ties count one half), both paired, with
    95% intervals over prompts; ties: share of pairs that are equal; p_value: Wilcoxon's signed-rank test over the mean
    change of each prompt, two-sided (null where all changes are 0); failed: pairs left out, since a score failed.
    """
    before_N, after_N = base.scores[scorer], tuned.scores[scorer]
    usable_N = np.isfinite(before_N) & np.isfinite(after_N)
    equal = (before_N == after_N)[usable_N]
    return {
        **_alone(tuned, scorer),
        "change": change(before_N, after_N, base.prompts).to_json(),
        "win_rate": win_rate(before_N, after_N, base.prompts).to_json(),
        "ties": float(equal.mean()) if len(equal) else None,
        "p_value": _p_value(before_N, after_N, base.prompts),
        "failed": int((~usable_N).sum()),
    }


def _alone(images: ImageSet, scorer: str) -> dict[str, Any]:
    scores_N = images.scores[scorer].astype(np.float64)
    finite = scores_N[np.isfinite(scores_N)]
    return {
        "mean": mean_interval(scores_N, images.prompts).to_json(),
        "median": float(np.median(finite)) if len(finite) else None,
    }


def _p_value(before_N: np.ndarray, after_N: np.ndarray, prompts: Sequence[str]) -> float | None:
    """Pictures of one prompt are no independent draws: their mean is one."""
    changes: dict[str, list[float]] = {}
    for prompt, one, other in zip(prompts, before_N, after_N, strict=True):
        if np.isfinite(one) and np.isfinite(other):
            changes.setdefault(prompt, []).append(float(other) - float(one))
    means = np.array([np.mean(values) for values in changes.values()])
    if not len(means) or not np.any(means):
        return None
    return float(wilcoxon(means).pvalue)


def _by_category(base: ImageSet, tuned: ImageSet, categories: list[str]) -> dict[str, Any]:
    found = {}
    for category in sorted(set(categories) - {""}):
        rows = [row for row, one in enumerate(categories) if one == category]
        one, other = _rows(base, rows), _rows(tuned, rows)
        found[category] = {name: against(one, other, name) for name in base.scores}
    return found


def _rows(images: ImageSet, rows: list[int]) -> ImageSet:
    return ImageSet(
        [images.prompts[row] for row in rows],
        [images.seeds[row] for row in rows],
        images.images[rows],
        {name: scores[rows] for name, scores in images.scores.items()},
    )
