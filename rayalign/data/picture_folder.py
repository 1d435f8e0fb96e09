"""A folder of images, looked through to its depths, with prompts from metadata.jsonl or from a file beside each."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from PIL import Image

from rayalign.data.folder import read_text
from rayalign.data.picture import FIELD, MISSING, PROMPT_NAMES, Picture, PictureSet, Source
from rayalign.errors import ConfigError

METADATA = "metadata.jsonl"
LINE = '{"file_name": "cat.png", "text": "a cat"}'
BESIDE = (".txt", ".caption")
ABSENT = -1  # size of a file that the metadata names and that is not there


def folder_set(folder: Path, prompt: str | None, column: str | None, rows_per_part: int) -> PictureSet:
    """The images of a folder, in the order of their names.

    Args:
        folder: hidden files and folders are left out.
        prompt: of all; where null the metadata's, then that of a file beside the image.
        column: of the metadata; null takes the first of `PROMPT_NAMES` that a line has.
        rows_per_part: images of a part.

    Raises:
        ConfigError: no image; metadata that is none; a column that no line has.
    """
    images = {path.relative_to(folder).as_posix(): path for path in _images(folder)}
    told = _metadata(folder, column) if prompt is None else {}
    names = sorted({*images, *told})  # what is told of and not there is a picture that cannot be read
    if not names:
        kinds = "none of its files is an image that Pillow opens"
        raise ConfigError(FIELD, str(folder), f"{kinds}; set a folder of images, or of parquet files")
    sources = [_source(name, folder / name, told, prompt) for name in names]
    beside = sum(name not in told and source.prompt is not None for name, source in zip(names, sources, strict=True))
    where = (
        "one for all"
        if prompt
        else ", ".join(text for text, some in ((METADATA, told), ("a file beside each", beside)) if some)
    )
    starts = range(0, len(sources), rows_per_part)
    chunks = [sources[start : start + rows_per_part] for start in starts]
    parts = [
        pa.table(
            {
                "id": pa.array([source.name for source in chunk], pa.string()),
                "path": pa.array([str(folder / source.name) for source in chunk], pa.string()),
                "prompt": pa.array([source.prompt for source in chunk], pa.string()),
            }
        )
        for chunk in chunks
    ]
    return PictureSet([len(chunk) for chunk in chunks], parts, read_files, tuple(sources), where)


def read_files(part: pa.Table) -> Iterator[Picture]:
    for row in part.to_pylist():
        try:
            data = Path(row["path"]).read_bytes()
        except FileNotFoundError:
            yield Picture(row["id"], row["prompt"], None, MISSING)
        except OSError as error:
            yield Picture(row["id"], row["prompt"], None, f"the file cannot be read: {error.strerror}")
        else:
            yield Picture(row["id"], row["prompt"], data)


def _images(folder: Path) -> Iterator[Path]:
    kinds = Image.registered_extensions()
    for top, folders, files in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if os.path.splitext(name)[1].lower() in kinds and not name.startswith("."):
                yield Path(top) / name


def _source(name: str, path: Path, told: dict[str, str | None], prompt: str | None) -> Source:
    if prompt is None:
        prompt = told[name] if name in told else _beside(path)
    try:
        stat = path.stat()
    except OSError:
        return Source(name, ABSENT, ABSENT, prompt)
    return Source(name, stat.st_size, stat.st_mtime_ns, prompt)


def _beside(path: Path) -> str | None:
    for suffix in BESIDE:
        file = path.with_suffix(suffix)
        if file.is_file():
            return read_text(file, FIELD).strip() or None
    return None


def _metadata(folder: Path, column: str | None) -> dict[str, str | None]:
    """File name, from `folder` on -> prompt, by every metadata.jsonl: its names count from where it lies."""
    found: dict[str, str | None] = {}
    for file in sorted(folder.rglob(METADATA)):
        rows = [_line(file, number, line) for number, line in enumerate(read_text(file, FIELD).split("\n"), 1) if line]
        names = [column] if column else list(PROMPT_NAMES)
        if rows and column and not any(column in row for row in rows):
            known = ", ".join(sorted({key for row in rows for key in row} - {"file_name"}))
            raise ConfigError("prompt_column", column, f"no line of {file} has it; set one of {known}")
        for row in rows:
            path = Path(os.path.normpath(file.parent / row["file_name"]))
            if not path.is_relative_to(folder):
                raise ConfigError(FIELD, str(file), f"{row['file_name']} lies outside of {folder}; name files below it")
            prompt = next((row[name] for name in names if isinstance(row.get(name), str)), None)
            found[path.relative_to(folder).as_posix()] = prompt.strip() or None if prompt else None
    return found


def _line(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ConfigError(FIELD, f"{file}, line {number}", f"is no JSON ({error}); write {LINE}") from error
    if not isinstance(row, dict) or not isinstance(row.get("file_name"), str):
        raise ConfigError(FIELD, f"{file}, line {number}", f"names no file; write {LINE}")
    return row
