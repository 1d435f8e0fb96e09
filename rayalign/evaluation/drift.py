"""How pictures changed in ways that no scorer was asked about.

A policy that exploits its reward tends to lose edges, colours and variety before a person reads it off the
score. These four numbers need no weights, so that every run can report them. Shape letters: H, W pixels.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from rayalign.evaluation.image_set import ImageSet, require_same_rows
from rayalign.evaluation.intervals import change, mean_interval

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # BT.601 weights of R, G, B
EDGE_THRESHOLD = (
    0.1  # luma per pixel above which a pixel counts as edge: above sampling noise, below outlines
)
COLOUR_BINS = 8  # per channel: 512 colours, entropy at most 9 bits

# statistic -> what it says and in which unit, for tables
MEANING = {
    "edge_density": "share of pixels on an edge",
    "saturation": "mean colour saturation, 0 to 1",
    "colour_entropy": "bits, of 512 colours (at most 9)",
    "diversity": "RMS pixel distance between seeds of one prompt, 0 to 1",
}


def edge_density(image_HW3: np.ndarray) -> float:
    """Share of pixels whose luma gradient, sqrt(dx^2 + dy^2) by central differences, passes the limit."""
    luma_HW = image_HW3.astype(np.float32) @ LUMA / 255
    dy_HW, dx_HW = np.gradient(luma_HW)
    return float((np.hypot(dx_HW, dy_HW) > EDGE_THRESHOLD).mean())


def saturation(image_HW3: np.ndarray) -> float:
    """Mean over pixels of HSV's S = (max - min) / max over R, G, B; black has S = 0."""
    high, low = image_HW3.max(-1).astype(np.float32), image_HW3.min(-1).astype(np.float32)
    return float(((high - low) / np.maximum(high, 1)).mean())


def colour_entropy(image_HW3: np.ndarray) -> float:
    """-sum_c p_c log2 p_c in bits, over the 8 x 8 x 8 colour histogram of the picture."""
    binned = image_HW3.astype(np.int64) // (256 // COLOUR_BINS)
    code = (binned[..., 0] * COLOUR_BINS + binned[..., 1]) * COLOUR_BINS + binned[..., 2]
    share = np.bincount(code.ravel()) / code.size
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum()) + 0.0  # + 0.0: one colour gives 0, not -0


def rms_distance(one_HW3: np.ndarray, other_HW3: np.ndarray) -> float:
    """sqrt(mean((a - b)^2)) over pixels and channels, of values in 0..1."""
    return float(np.sqrt(np.mean((one_HW3.astype(np.float32) - other_HW3.astype(np.float32)) ** 2)) / 255)


def statistics(images: ImageSet) -> dict[str, tuple[np.ndarray, list[str]]]:
    """statistic -> (values, the prompt of each): one per image, for diversity one per prompt."""
    per_image = {"edge_density": edge_density, "saturation": saturation, "colour_entropy": colour_entropy}
    found = {
        name: (np.array([measure(image) for image in images.images]), images.prompts)
        for name, measure in per_image.items()
    }
    rows: dict[str, list[int]] = {}
    for i, prompt in enumerate(images.prompts):
        rows.setdefault(prompt, []).append(i)
    several = {prompt: indices for prompt, indices in rows.items() if len(indices) > 1}
    diversity = [
        np.mean([rms_distance(images.images[i], images.images[j]) for i, j in combinations(indices, 2)])
        for indices in several.values()
    ]
    return {**found, "diversity": (np.array(diversity, dtype=np.float64), list(several))}


def drift(before: ImageSet, after: ImageSet) -> dict[str, dict[str, Any]]:
    """{"before", "after", "change"} -> statistic -> {"mean", "ci95", "n"}.

    Intervals over prompts; the change is paired, so rows of both must show the same prompts and seeds.
    """
    require_same_rows(before, after)
    first, second = statistics(before), statistics(after)
    result: dict[str, dict[str, Any]] = {"before": {}, "after": {}, "change": {}}
    for name, (values, prompts) in first.items():
        result["before"][name] = mean_interval(values, prompts).to_json()
        result["after"][name] = mean_interval(*second[name]).to_json()
        result["change"][name] = change(values, second[name][0], prompts).to_json()
    return result
