"""What a set of pictures is, whatever its layout: `folder_set`, `parquet_set` and `open_pictures` make one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import pyarrow as pa

FIELD = "images"  # the setting that errors name
PROMPT_NAMES = ("prompt", "text", "caption")  # where the user names no column
MISSING = "the file is not there"


class Picture(NamedTuple):
    id: str
    prompt: str | None
    data: bytes | None  # an encoded image file
    reason: str = ""  # why there is no data


class Source(NamedTuple):
    """What a file was when the scoring began: one that has changed must not meet scores of what it was."""

    name: str
    size: int
    changed_ns: int
    prompt: str | None = None


class PartReader(Protocol):
    def __call__(self, part: pa.Table) -> Iterator[Picture]:
        """The pictures of a part, in order, a few in memory at a time. Small and picklable: it travels to actors."""
        ...


class PictureSet(NamedTuple):
    part_rows: Sequence[int]  # pictures of each part
    parts: Sequence[pa.Table]  # what `reader` needs of each
    reader: PartReader
    sources: tuple[Source, ...]
    prompts_from: str  # for a person: where the prompts are; empty if there are none
