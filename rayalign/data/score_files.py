"""The result of a scoring on disk: files that are there whole or not at all, and what they were made from.

<output>/scores/part-00000.parquet ...   id, prompt, a column a scorer (null where it has no score), reason
<output>/settings.json                   what the scores follow from
<output>/sources.parquet                 what the scored files were: names, sizes, times of change, prompts
<output>/summary.json                    counts, mean and median of each scorer, what could not be read
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rayalign.data.picture import Source
from rayalign.errors import ConfigError
from rayalign.trees import changes
from rayalign.whole_files import replacing, write_whole

SCORES, SETTINGS, SOURCES, SUMMARY = "scores", "settings.json", "sources.parquet", "summary.json"


def score_schema(scorers: Sequence[str]) -> pa.Schema:
    """Of the result. `reason`: "jpeg: not finite; clip: no prompt", or why an image was not read; else null."""
    columns = [("id", pa.string()), ("prompt", pa.string()), *((name, pa.float32()) for name in scorers)]
    return pa.schema([*columns, ("reason", pa.string())])


class ScoreFiles:
    """The folder of one scoring.

    Args:
        folder: made if it is not there.
        part_rows: rows of each file.
        scorers: their columns.
    """

    def __init__(self, folder: Path, part_rows: Sequence[int], scorers: Sequence[str]) -> None:
        self.folder, self.part_rows, self.schema = folder, part_rows, score_schema(scorers)

    def begin(self, settings: dict[str, Any], sources: Sequence[Source]) -> None:
        """Writes what the scores will follow from, or compares it with what is there.

        Raises:
            ConfigError: the folder holds scores of other settings or of another input, or something else.
        """
        stored = self.folder / SETTINGS
        if stored.exists():
            self._check_settings(json.loads(stored.read_text(encoding="utf-8")), settings)
            self._check_sources(pq.read_table(self.folder / SOURCES), sources)
            return
        if self.folder.exists() and any(not file.name.startswith(".") for file in self.folder.iterdir()):
            raise ConfigError("output", str(self.folder), "holds other files; set a folder that is new or empty")
        (self.folder / SCORES).mkdir(parents=True, exist_ok=True)
        table = pa.Table.from_pylist([source._asdict() for source in sources], schema=_SOURCES)
        with replacing(self.folder / SOURCES) as partial:
            pq.write_table(table, partial)
        # Last: with it the folder counts as begun.
        write_whole(stored, json.dumps(settings, indent=1, ensure_ascii=False))

    def missing(self) -> list[int]:
        """Parts that are not there yet."""
        return [part for part in range(len(self.part_rows)) if not self._path(part).exists()]

    def write(self, part: int, table: pa.Table) -> None:
        """`table` has the columns of the schema, and as many rows as the part. Raises ValueError otherwise."""
        if table.num_rows != self.part_rows[part]:
            raise ValueError(f"part {part} has {table.num_rows} rows, and {self.part_rows[part]} are wanted")
        self._path(part).parent.mkdir(parents=True, exist_ok=True)
        with replacing(self._path(part)) as partial:
            pq.write_table(table.select(self.schema.names).cast(self.schema), partial)

    def read(self) -> pa.Table:
        """All parts in their order."""
        parts = range(len(self.part_rows))
        return pa.concat_tables([pq.read_table(self._path(part), schema=self.schema) for part in parts])

    def _path(self, part: int) -> Path:
        return self.folder / SCORES / f"part-{part:05d}.parquet"

    def _check_settings(self, before: dict[str, Any], now: dict[str, Any]) -> None:
        if changed := changes(before, now):
            fix = f"holds scores of other settings ({'; '.join(changed)}); set another output, or remove it"
            raise ConfigError("output", str(self.folder), fix)

    def _check_sources(self, before: pa.Table, sources: Sequence[Source]) -> None:
        was = {row["name"]: Source(**row) for row in before.to_pylist()}
        now = {source.name: source for source in sources}
        told = {
            "new": [name for name in now if name not in was],
            "gone": [name for name in was if name not in now],
            "changed": [name for name in now if name in was and now[name] != was[name]],
        }
        said = [f"{len(names)} {what}, such as {names[0]}" for what, names in told.items() if names]
        if said:
            fix = f"holds scores of these images as they were ({'; '.join(said)}); set another output, or remove it"
            raise ConfigError("output", str(self.folder), fix)


_SOURCES = pa.schema([("name", pa.string()), ("size", pa.int64()), ("changed_ns", pa.int64()), ("prompt", pa.string())])
