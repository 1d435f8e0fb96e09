"""What a style alignment came to: how near each model is to the style, and whether it still draws what was asked.

Two rows frame the others: the base, and the restyled pictures themselves, whose scores a perfect imitation would have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from rayalign.evaluation.distribution import distribution_distance
from rayalign.evaluation.features import FeatureExtractor, extract
from rayalign.evaluation.formatting import decimals, interval, number
from rayalign.evaluation.grids import grid
from rayalign.evaluation.image_set import ImageSet, require_same_rows, spread
from rayalign.evaluation.intervals import mean_interval

BASE, TARGET = "base", "target"
NUM_PROMPTS_SHOWN = 8


def measure_style(sets: Mapping[str, ImageSet], extractor: FeatureExtractor) -> dict[str, Any]:
    """FID and KID of every set to the `target`, and the mean of every score.

    Args:
        sets: name -> pictures of the same prompts and seeds; `base` and `target` among them.

    Returns {"extractor", "num_pictures", "num_prompts", "fid_note", "rows": [{"name", "fid", "kid": {"mean", "std"},
    "scores": {scorer: {"mean", "ci95", "n"}}}]}, in the order of `sets`. The target has no distance to itself.

    Raises:
        ValueError: sets of other rows; fewer than three pictures.
    """
    target = sets[TARGET]
    target_features = extract(target.images, extractor)
    rows, note = [], ""
    for name, images in sets.items():
        require_same_rows(target, images)
        row: dict[str, Any] = {"name": name, "fid": None, "kid": None}
        if name != TARGET:
            distance = distribution_distance(extract(images.images, extractor), target_features, extractor.name)
            row |= {"fid": distance.fid, "kid": {"mean": distance.kid.mean, "std": distance.kid.std}}
            note = distance.fid_note
        scores = {scorer: mean_interval(values, images.prompts).to_json() for scorer, values in images.scores.items()}
        rows.append(row | {"scores": scores})
    return {
        "extractor": extractor.name,
        "num_pictures": len(target),
        "num_prompts": len(set(target.prompts)),
        "fid_note": note,
        "rows": rows,
    }


def style_table(report: Mapping[str, Any]) -> str:
    """`measure_style`'s report as an aligned Markdown table and what to know of its numbers."""
    rows = report["rows"]
    scorers = list(rows[0]["scores"])
    cells = [["model", "KID", "FID", *scorers]]
    for row in rows:
        scores = (" ".join(interval(row["scores"][scorer])).strip() for scorer in scorers)
        cells.append([row["name"], _kid(row["kid"]), number(row["fid"], 2), *scores])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [f"| {' | '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))} |" for row in cells]
    lines.insert(1, f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    pictures = f"{report['num_pictures']} held-out pictures of {report['num_prompts']} prompts"
    lines += [
        "",
        f"{pictures}, seen by {report['extractor']}.",
        "KID (+- its standard deviation) and FID: to the base's own pictures in the style (target); lower is nearer.",
        "Scores: of the prompt, which does not name the style; the target's are what a perfect imitation would have.",
    ]
    if report["fid_note"]:
        lines.append(report["fid_note"])
    return "\n".join(lines).replace("−", "-").replace("–", "-")  # plain ASCII, for logs that are not UTF-8


def style_grid(sets: Mapping[str, ImageSet], num_prompts: int = NUM_PROMPTS_SHOWN) -> Image.Image:
    """A row for each prompt, a column for each set. Raises ValueError unless all show the same rows."""
    first = next(iter(sets.values()))
    for images in sets.values():
        require_same_rows(first, images)
    rows = spread(first.prompts, num_prompts)
    pictures: list[np.ndarray] = [images.images[row] for row in rows for images in sets.values()]
    captions = [_caption(name, first.prompts[row], i) for row in rows for i, name in enumerate(sets)]
    return grid(pictures, len(sets), captions)


def _caption(name: str, prompt: str, column: int) -> str:
    return f"{name}: {prompt}" if column == 0 else name


def _kid(entry: Mapping[str, float] | None) -> str:
    if entry is None:
        return number(None)
    places = decimals(entry["mean"] - entry["std"], entry["mean"] + entry["std"])
    return f"{number(entry['mean'], places)} +- {number(entry['std'], places)}"
