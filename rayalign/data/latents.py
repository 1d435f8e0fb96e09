"""Rows of a preference set as VAE latents: encoded on the way, or read from a cache that was written once.

    <cache>/<fingerprint>/group-000012.parquet      the rows of one group of the set, float32 latents

The fingerprint covers the set's size, the VAE and the resolution, so that another model never reads these latents.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from rayalign.data.images import decode
from rayalign.data.preferences import (
    BAD_IMAGE,
    BAD_LABELS,
    BAD_LINE,
    NO_CAPTION,
    NO_IMAGE,
    PreferenceIndex,
    PreferenceRow,
    read_rows,
)
from rayalign.records import BROKEN, LATENT_FAILED, tensor_column, tensor_values

Encode = Callable[[torch.Tensor], torch.Tensor]  # images in [0, 1] (B, 3, H, W) -> latents (B, C, H, W)

STATUS_OF_REASON = {
    NO_CAPTION: "broken_caption",
    NO_IMAGE: "broken_image",
    BAD_IMAGE: "broken_image",
    BAD_LABELS: "broken_labels",
    BAD_LINE: "broken_line",
}
# A window of the shuffle (`preferences.epoch_order`) is about 11 groups of 100 rows, and a ticket can span two.
GROUPS_IN_MEMORY = 24


@dataclass(frozen=True)
class LatentRows:
    """N rows. Latents are zeros where a row is no preference."""

    prompts: list[str]
    status: list[str]  # of `records.STATUSES`
    winner: np.ndarray  # float32 (N, C, H, W)
    loser: np.ndarray  # float32 (N, C, H, W)


def encode_rows(rows: Sequence[PreferenceRow], encode: Encode, resolution: int) -> LatentRows:
    """Both images of every row with a preference, one call of the encoder for each image: bits of a row never vary."""
    status = [STATUS_OF_REASON[row.reason] if row.status == BROKEN else row.status for row in rows]
    empty = np.zeros((3, resolution, resolution), dtype=np.float32)
    shape = encode(torch.from_numpy(empty)[None]).shape[1:]
    sides = {}
    for side in ("winner", "loser"):
        latents = np.zeros((len(rows), *shape), dtype=np.float32)
        for number, row in enumerate(rows):
            data = getattr(row, side)
            if data is not None:
                latents[number] = encode(torch.from_numpy(decode(data, resolution))[None])[0].cpu().numpy()
        finite = np.array([bool(np.isfinite(one).all()) for one in latents], dtype=bool)
        sides[side] = np.where(finite.reshape(-1, 1, 1, 1), latents, np.float32(0))
        status = [one if ok else LATENT_FAILED for one, ok in zip(status, finite.tolist(), strict=True)]
    return LatentRows([row.prompt for row in rows], status, sides["winner"], sides["loser"])


def fingerprint(index: PreferenceIndex, path: str, model: str, resolution: int) -> str:
    """Of what decides the latents of a set: where it is, when it was written, its groups, the model and the pixels."""
    parts = repr((path, index.stamp, list(index.group_rows), model, resolution))
    return hashlib.blake2b(parts.encode(), digest_size=8).hexdigest()


class LatentCache:
    """The groups written so far. Each file stands whole or not at all, so a killed writer loses one group."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: OrderedDict[int, pa.Table] = OrderedDict()

    def file(self, group: int) -> Path:
        return self.folder / f"group-{group:06d}.parquet"

    def missing(self, num_groups: int) -> list[int]:
        return [group for group in range(num_groups) if not self.file(group).exists()]

    def write(self, group: int, rows: LatentRows) -> None:
        columns = {
            "prompt": pa.array(rows.prompts),
            "status": pa.array(rows.status),
            "winner": tensor_column(rows.winner),
            "loser": tensor_column(rows.loser),
        }
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f".{self.file(group).name}.{os.getpid()}"
        pq.write_table(pa.table(columns), partial)
        os.replace(partial, self.file(group))

    def rows(self, index: PreferenceIndex, row_numbers: Sequence[int]) -> LatentRows:
        """The rows of these numbers, in the order asked for."""
        ends = np.cumsum(index.group_rows)
        found = []
        for number in row_numbers:
            group = int(np.searchsorted(ends, number, side="right"))
            offset = int(number) - int(ends[group]) + index.group_rows[group]
            found.append(self._group(group).slice(offset, 1))
        table = pa.concat_tables(found).combine_chunks()
        latents = (np.array(tensor_values(table[side])) for side in ("winner", "loser"))
        return LatentRows(table["prompt"].to_pylist(), table["status"].to_pylist(), *latents)

    def _group(self, group: int) -> pa.Table:
        if group not in self._read:
            self._read[group] = pq.read_table(self.file(group), memory_map=True)
            if len(self._read) > GROUPS_IN_MEMORY:
                self._read.popitem(last=False)
        self._read.move_to_end(group)
        return self._read[group]

    def count(self, num_groups: int) -> dict[str, int]:
        """Rows by status, over all groups."""
        counts: dict[str, int] = {}
        for group in range(num_groups):
            for entry in pc.value_counts(pq.read_table(self.file(group), columns=["status"])["status"]).to_pylist():
                counts[entry["values"]] = counts.get(entry["values"], 0) + entry["counts"]
        return counts


class LatentSource:
    """What an encoder actor asks for rows: from the cache where there is one, else read and encoded now."""

    def __init__(
        self, index: PreferenceIndex, encode: Encode | None, resolution: int, cache: LatentCache | None
    ) -> None:
        self._index, self._encode, self._resolution, self._cache = index, encode, resolution, cache

    def rows(self, row_numbers: Sequence[int]) -> LatentRows:
        if self._cache is not None:
            return self._cache.rows(self._index, row_numbers)
        assert self._encode is not None, "without a cache an encoder is needed"
        return encode_rows(read_rows(self._index, row_numbers), self._encode, self._resolution)
