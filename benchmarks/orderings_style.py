"""The style group's preference set and its measure: the base's own pictures, and the same in a drawn style."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rayalign.config import RunConfig
from rayalign.data.images import encode
from rayalign.data.preferences import PreferenceRow
from rayalign.data.source import write_pairs
from rayalign.data.style import stylise
from rayalign.errors import ConfigError
from rayalign.evaluation.distribution import distribution_distance
from rayalign.evaluation.features import build_extractor, extract
from rayalign.evaluation.image_set import ImageSet
from rayalign.models.load import load_model
from rayalign.prompts import load_prompts
from rayalign.sampling.images import as_stored, draw_images

SEED = 5000  # of the base's pictures for the set; the held-out ones have others


def style_pairs(work: Path, tree: dict[str, Any], style: str, num_prompts: int) -> Path:
    """Draws the set once; the process that comes second waits for it."""
    path, lock = work / f"style-{style}.parquet", work / f"style-{style}.lock"
    work.mkdir(parents=True, exist_ok=True)
    if path.exists():
        return path
    try:
        lock.touch(exist_ok=False)
    except FileExistsError:
        while not path.exists():
            time.sleep(1)
        return path
    try:
        write_pairs(path, _rows(RunConfig.model_validate(tree), style, num_prompts))
    except ConfigError:  # written meanwhile
        pass
    finally:
        lock.unlink()
    return path


def _rows(config: RunConfig, style: str, num_prompts: int) -> list[PreferenceRow]:
    model = load_model(config, "cpu")
    prompts = load_prompts(config.prompts)[:num_prompts]
    rows: list[PreferenceRow] = []
    for start in range(0, len(prompts), 16):
        batch = prompts[start : start + 16]
        images = draw_images(model, batch, range(SEED + start, SEED + start + len(batch)), "initial")
        plain, _ = as_stored(images)
        for prompt, loser, winner in zip(batch, plain, stylise(plain, style), strict=True):
            rows.append(PreferenceRow(prompt, encode(winner), encode(loser)))
    return rows


def measure_style(before: ImageSet, after: ImageSet, style: str) -> dict[str, Any]:
    """Distances of the base's and of the tuned model's held-out pictures to the base's own in the style."""
    extractor = build_extractor("toy-clip")
    target = extract(stylise(before.images, style), extractor)
    found = {}
    for name, images in (("before", before.images), ("after", after.images)):
        found[name] = distribution_distance(extract(images, extractor), target, extractor.name).to_json()
    return found
