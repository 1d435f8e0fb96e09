"""Drawn and scored pictures on disk, a file a batch, each there whole or not at all: an evaluation can go on.

<folder>/settings.json                  what pictures and scores follow from
<folder>/parts/<label>/00000.parquet    row, prompt, seed, image (PNG), a column a scorer (null: it failed)
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from rayalign.errors import ConfigError
from rayalign.evaluation.image_set import ImageSet
from rayalign.trees import changes
from rayalign.whole_files import replacing, write_whole

SETTINGS, PARTS = "settings.json", "parts"


def part_table(rows: Sequence[int], prompts: Sequence[str], seeds: Sequence[int], images: np.ndarray) -> pa.Table:
    """Pictures uint8 (B, H, W, 3) as rows, without scores."""
    pictures = pa.array([_png(image) for image in images], pa.binary())
    return pa.table({"row": list(rows), "prompt": list(prompts), "seed": list(seeds), "image": pictures})


class PartFiles:
    """The folder of one evaluation."""

    def __init__(self, folder: Path, labels: Sequence[str], num_parts: int) -> None:
        self.folder, self.labels, self.num_parts = folder, labels, num_parts

    def begin(self, settings: dict[str, Any]) -> None:
        """Writes what the pictures will follow from, or compares it with what is there.

        More models may come later: a label keeps its path. Raises ConfigError if the folder is of other settings.
        """
        file = self.folder / SETTINGS
        if file.exists():
            before = json.loads(file.read_text(encoding="utf-8"))
            known = {label: settings["models"].get(label, path) for label, path in before["models"].items()}
            if changed := changes(before, settings | {"models": known}):
                fix = f"holds an evaluation of other settings ({'; '.join(changed)}); set another name"
                raise ConfigError("name", str(self.folder), fix)
            settings = settings | {"models": before["models"] | settings["models"]}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(file, json.dumps(settings, indent=1, ensure_ascii=False))

    def missing(self, label: str) -> list[int]:
        return [part for part in range(self.num_parts) if not self._path(label, part).exists()]

    def write(self, label: str, part: int, table: pa.Table) -> None:
        self._path(label, part).parent.mkdir(parents=True, exist_ok=True)
        with replacing(self._path(label, part)) as partial:
            pq.write_table(table, partial)

    def read(self, label: str, scorers: Sequence[str]) -> ImageSet:
        """All parts, in their order; a score that failed is NaN."""
        tables = [pq.read_table(self._path(label, part)) for part in range(self.num_parts)]
        whole = pa.concat_tables(tables).sort_by("row")
        pixels = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in whole["image"].to_pylist()]
        scores = {
            name: np.array([np.nan if v is None else v for v in whole[name].to_pylist()], np.float32)
            for name in scorers
        }
        return ImageSet(whole["prompt"].to_pylist(), whole["seed"].to_pylist(), np.stack(pixels), scores)

    def _path(self, label: str, part: int) -> Path:
        return self.folder / PARTS / label / f"{part:05d}.parquet"


def _png(image: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG")
    return data.getvalue()
