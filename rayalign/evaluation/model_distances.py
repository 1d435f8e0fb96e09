"""How far a tuned model's pictures are from the base's, and all from a folder of reference pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from rayalign.errors import ConfigError
from rayalign.evaluation.distribution import MIN_PICTURES, distribution_distance
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
    """FID and KID of each set against the pictures of `folder`. Raises ConfigError as `check_reference`."""
    reference_MD = np.concatenate([extract(image[None], extractor) for image in _pictures(folder)])
    return {
        label: distribution_distance(extract(images.images, extractor), reference_MD, extractor.name).to_json()
        for label, images in sets.items()
    }


def check_reference(folder: str) -> None:
    """By the headers of its pictures. Raises ConfigError if there are fewer than three, or one that is none."""
    _opened(folder, lambda picture: None)


def _pictures(folder: str) -> list[np.ndarray]:
    return _opened(folder, lambda picture: np.asarray(picture.convert("RGB")))


def _opened(folder: str, read: Callable[[Image.Image], Any]) -> list[Any]:
    place = Path(folder).expanduser()
    files = sorted(file for file in place.rglob("*") if file.suffix.lower() in ENDINGS) if place.is_dir() else []
    if len(files) < MIN_PICTURES:
        what = f"holds {len(files)} pictures" if place.is_dir() else "no such folder"
        raise ConfigError("reference.folder", folder, f"{what}; set a folder with many")
    found = []
    for file in files:
        try:
            with Image.open(file) as picture:
                found.append(read(picture))
        except (OSError, UnidentifiedImageError) as error:
            fix = f"{file.relative_to(place)} is no picture that can be read; mend it, or take it away"
            raise ConfigError("reference.folder", folder, fix) from error
    return found
