"""The pictures of one evaluation with prompts, seeds and scores, and the folder they live in."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rayalign.whole_files import write_whole

INDEX = "scores.json"
SLUG_CHARS = 40  # keeps file names far below the 255 bytes that file systems allow


@dataclass(frozen=True)
class ImageSet:
    """N images: what was asked (prompt, seed), what came out, what scorers say. Rows of all four match."""

    prompts: list[str]
    seeds: list[int]
    images: np.ndarray  # uint8 (N, H, W, 3), RGB
    scores: dict[str, np.ndarray] = field(default_factory=dict)  # scorer -> float32 (N,); NaN: scoring failed

    def __post_init__(self) -> None:
        n = len(self.prompts)
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[-1] != 3:
            raise ValueError(
                f"images must be uint8 (N, H, W, 3), got {self.images.dtype} {self.images.shape}"
            )
        if not n == len(self.seeds) == len(self.images):
            raise ValueError(
                f"{n} prompts, {len(self.seeds)} seeds and {len(self.images)} images do not match"
            )
        for scorer, score_N in self.scores.items():
            if np.shape(score_N) != (n,):
                raise ValueError(f"scores of {scorer} must be ({n},), got {np.shape(score_N)}")

    def __len__(self) -> int:
        return len(self.prompts)

    def save(self, folder: str | Path) -> None:
        """PNG files and `scores.json`. The index goes in last, in one move: a folder that has one is whole.

        A score that is not finite is written as null and comes back as NaN: a failure is no number.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        _remove_earlier(folder)
        rows = []
        for i, (prompt, seed) in enumerate(zip(self.prompts, self.seeds, strict=True)):
            name = f"{i:04d}-{slug(prompt)}-{seed}.png"
            Image.fromarray(self.images[i]).save(folder / name)
            # float32 -> float64 -> shortest decimal is exact both ways, so scores survive bit for bit.
            scores = {scorer: _or_null(score_N[i]) for scorer, score_N in self.scores.items()}
            rows.append({"file": name, "prompt": prompt, "seed": int(seed), "scores": scores})
        index = json.dumps({"images": rows}, indent=1, ensure_ascii=False, allow_nan=False)
        write_whole(folder / INDEX, index)

    @classmethod
    def load(cls, folder: str | Path) -> ImageSet:
        """What `save` wrote. Raises FileNotFoundError where it never finished."""
        rows = read_index(folder)
        images = [np.asarray(Image.open(Path(folder) / row["file"]).convert("RGB")) for row in rows]
        scorers = rows[0]["scores"] if rows else {}
        return cls(
            prompts=[row["prompt"] for row in rows],
            seeds=[row["seed"] for row in rows],
            images=np.stack(images) if images else np.zeros((0, 1, 1, 3), np.uint8),
            scores={
                name: np.array([_or_nan(row["scores"][name]) for row in rows], np.float32) for name in scorers
            },
        )


def read_index(folder: str | Path) -> list[dict[str, Any]]:
    """The rows of `scores.json` (file, prompt, seed, scores) without opening a picture."""
    return json.loads((Path(folder) / INDEX).read_text("utf-8"))["images"]


def slug(prompt: str) -> str:
    """A prompt as part of a file name: ASCII letters, digits and hyphens only, so never a path."""
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower())[:SLUG_CHARS].strip("-") or "prompt"


def spread(prompts: Sequence[str], n: int) -> list[int]:
    """n rows: the first seed of every prompt, then the second, and so on. Nobody picks what is shown."""
    seen: dict[str, int] = {}
    turn = []
    for prompt in prompts:
        turn.append(seen.get(prompt, 0))
        seen[prompt] = turn[-1] + 1
    return sorted(range(len(prompts)), key=lambda i: (turn[i], i))[:n]


def require_same_rows(before: ImageSet, after: ImageSet) -> None:
    """Raises ValueError unless both show the same prompts with the same seeds, in the same order."""
    if list(before.prompts) != list(after.prompts) or list(before.seeds) != list(after.seeds):
        raise ValueError("before and after must show the same prompts with the same seeds, row by row")


def _remove_earlier(folder: Path) -> None:
    """Takes away what an earlier `save` listed there, index first, and nothing else."""
    if not (folder / INDEX).exists():
        return
    names = [Path(row["file"]).name for row in read_index(folder)]
    (folder / INDEX).unlink()
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _or_null(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
