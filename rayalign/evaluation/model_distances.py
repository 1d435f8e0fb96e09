"""How far a tuned model's pictures are from the base's, and all from a folder of reference pictures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from rayalign.errors import ConfigError
from rayalign.evaluation.distribution import distribution_distance
from rayalign.evaluation.features import FeatureExtractor, extract
from rayalign.evaluation.image_set import ImageSet, require_same_rows
from rayalign.evaluation.intervals import mean_interval

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


def clip_distance(base: ImageSet, tuned: ImageSet, extractor: FeatureExtractor) -> dict[str, Any]:
    """1 - cosine of the two pictures of each prompt and seed, in [0, 2]: mean, 95% interval over prompts, n.

    Raises ValueError unless both show the same rows.
    """
    require_same_rows(base, tuned)
    one_ND, other_ND = (extract(images.images, extractor) for images in (base, tuned))
    norms = np.linalg.norm(one_ND, axis=1) * np.linalg.norm(other_ND, axis=1)
    return mean_interval(1 - (one_ND * other_ND).sum(1) / norms, base.prompts).to_json()


def distances_to(folder: str, sets: Mapping[str, ImageSet], extractor: FeatureExtractor) -> dict[str, Any]:
    """FID and KID of each set against the pictures of `folder`. Raises ConfigError if there are fewer than two."""
    reference_MD = np.concatenate([extract(image[None], extractor) for image in _pictures(folder)])
    return {
        label: distribution_distance(extract(images.images, extractor), reference_MD, extractor.name).to_json()
        for label, images in sets.items()
    }


def _pictures(folder: str) -> list[np.ndarray]:
    place = Path(folder).expanduser()
    files = sorted(file for file in place.rglob("*") if file.suffix.lower() in ENDINGS) if place.is_dir() else []
    if len(files) < 2:
        raise ConfigError("reference.folder", folder, f"holds {len(files)} pictures; set a folder with many")
    try:
        return [np.asarray(Image.open(file).convert("RGB")) for file in files]
    except (OSError, UnidentifiedImageError) as error:
        raise ConfigError("reference.folder", folder, f"a picture cannot be read: {error}") from error
