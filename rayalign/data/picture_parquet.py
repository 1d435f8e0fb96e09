"""Parquet with images and prompts, as the hub's datasets have it. A row group is a part: it costs one read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rayalign.data.picture import MISSING, PROMPT_NAMES, Picture, PictureSet, Source
from rayalign.errors import ConfigError, RayalignError

IMAGE_NAMES = ("image", "jpg", "png", "image_path", "path", "file_name")
ROWS_AT_ONCE = 32  # of a row group: encoded images in memory
NO_IMAGE = "the row has no image"


@dataclass(frozen=True)
class RowReader:
    """Reads one row group: images as bytes, as the hub's {bytes, path}, or as paths from the file on."""

    image: str
    prompt: str | None  # column
    id: str | None  # column
    prompt_of_all: str | None

    def __call__(self, part: pa.Table) -> Iterator[Picture]:
        """Raises RayalignError if the file has gone or is damaged: that is no bad row."""
        file, group, number = (part[name][0].as_py() for name in ("file", "group", "first"))
        columns = [name for name in dict.fromkeys((self.image, self.prompt, self.id)) if name]
        try:
            with pq.ParquetFile(file) as opened:
                for batch in opened.iter_batches(ROWS_AT_ONCE, row_groups=[group], columns=columns):
                    for row in batch.to_pylist():
                        yield self._picture(Path(file), number, row)
                        number += 1
        except (OSError, pa.ArrowException) as error:
            fix = "fetch the file again, or take it out"
            raise RayalignError(f"row group {group} of {file} cannot be read ({error}); {fix}") from error

    def _picture(self, file: Path, number: int, row: dict[str, Any]) -> Picture:
        name = f"{file.name}:{number}" if self.id is None else str(row[self.id])
        prompt = self.prompt_of_all or (row[self.prompt] if self.prompt else None)
        prompt = prompt.strip() or None if prompt else None
        image = row[self.image]
        if isinstance(image, dict):
            image = image.get("bytes") or image.get("path")
        if isinstance(image, str):
            path = file.parent / image
            try:
                return Picture(name, prompt, path.read_bytes())
            except OSError as error:
                return Picture(
                    name, prompt, None, MISSING if not path.exists() else f"cannot be read: {error.strerror}"
                )
        return Picture(name, prompt, image or None, "" if image else NO_IMAGE)


def parquet_set(
    files: Sequence[Path],
    prompt: str | None,
    prompt_column: str | None,
    image_column: str | None,
    id_column: str | None,
) -> PictureSet:
    """The rows of these files, in their order, known from their footers alone.

    Raises:
        ConfigError: a file that is no parquet; a column that is not there, or holds something else.
    """
    parts, rows, reader = [], [], None
    for file in files:
        try:
            footer = pq.read_metadata(file)
            schema = footer.schema.to_arrow_schema()
        except (OSError, pa.ArrowException) as error:
            raise ConfigError("images", str(file), f"is no whole parquet file ({error}); fetch it again") from error
        image = _image_column(schema, image_column, file)
        text = None if prompt else _text_column(schema, prompt_column, file)
        if id_column and id_column not in schema.names:
            raise _no_column("id_column", id_column, schema, file)
        reader, before = RowReader(image, text, id_column, prompt), reader
        if before not in (None, reader):
            raise ConfigError("images", str(file), f"has other columns than {files[0]}; score them apart")
        first = 0
        for group in range(footer.num_row_groups):
            rows.append(footer.row_group(group).num_rows)
            parts.append(pa.table({"file": [str(file)], "group": [group], "first": [first]}))
            first += rows[-1]
    if reader is None or not sum(rows):
        raise ConfigError("images", ", ".join(map(str, files)), "holds no rows; set a file that has some")
    stats = [(file, file.stat()) for file in files]
    sources = tuple(Source(file.name, stat.st_size, stat.st_mtime_ns, prompt) for file, stat in stats)
    where = "one for all" if prompt else f"column {reader.prompt}" if reader.prompt else ""
    kept = [number for number, count in enumerate(rows) if count]
    return PictureSet([rows[n] for n in kept], [parts[n] for n in kept], reader, sources, where)


def _image_column(schema: pa.Schema, name: str | None, file: Path) -> str:
    found = name or next((one for one in IMAGE_NAMES if one in schema.names), None)
    if found is None or found not in schema.names:
        raise _no_column("image_column", found, schema, file)
    kind = schema.field(found).type
    holds = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or _is_text(kind) or pa.types.is_struct(kind)
    if not holds:
        fix = f"{file} has it as {kind}; set a column of encoded images (binary), of {{bytes, path}}, or of paths"
        raise ConfigError("image_column", found, fix)
    return found


def _text_column(schema: pa.Schema, name: str | None, file: Path) -> str | None:
    found = name or next((one for one in PROMPT_NAMES if one in schema.names), None)
    if found is None:
        return None
    if found not in schema.names:
        raise _no_column("prompt_column", found, schema, file)
    if not _is_text(schema.field(found).type):
        fix = f"{file} has it as {schema.field(found).type}; set a column of strings"
        raise ConfigError("prompt_column", found, fix)
    return found


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _no_column(field: str, value: str | None, schema: pa.Schema, file: Path) -> ConfigError:
    return ConfigError(field, value, f"{file} has no such column; set one of {', '.join(schema.names)}")
