"""Pick-a-Pic v2's layout: parquet files, a row a comparison of two images of one caption.

    caption          string
    jpg_0, jpg_1     binary, encoded image files
    label_0, label_1 1 and 0: the first is preferred; 0 and 1: the second; both 0.5: a tie
    has_label        false where nobody chose (optional)

Other columns (are_different, ranking_id, user_id, ...) are not read. Diffusion-DPO's 851,293 pairs of 959,040 rows are
those whose labels are no tie, so `are_different` is not asked either.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rayalign.data.preferences import BAD_LABELS, FIELD, PreferenceRow, broken, checked, stamp_of
from rayalign.errors import ConfigError
from rayalign.records import TIE, UNLABELLED
from rayalign.whole_files import replacing

COLUMNS: dict[str, tuple[str, Any]] = {
    "caption": ("strings", lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind)),
    "jpg_0": ("binary (encoded images)", lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind)),
    "jpg_1": ("binary (encoded images)", lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind)),
    "label_0": ("numbers", lambda kind: pa.types.is_integer(kind) or pa.types.is_floating(kind)),
    "label_1": ("numbers", lambda kind: pa.types.is_integer(kind) or pa.types.is_floating(kind)),
}
HAS_LABEL = "has_label"
SPLIT = re.compile(r"(.+)-\d+-of-\d+")  # train-00000-of-00645.parquet

CACHE_BYTES = 512_000_000  # of row groups a reader keeps: one of Pick-a-Pic's may be 300 MB, and memory is the actors'
ROWS_A_GROUP = 100  # written: a reader fetches whole groups, and images make them large


class GroupCache:
    """The row groups read last, up to CACHE_BYTES, but always one. It stays behind when its index travels."""

    def __init__(self) -> None:
        self._tables: OrderedDict[int, pa.Table] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[GroupCache], tuple[()]]:
        return GroupCache, ()

    def get(self, group: int) -> pa.Table | None:
        with self._lock:
            if group in self._tables:
                self._tables.move_to_end(group)
            return self._tables.get(group)

    def put(self, group: int, table: pa.Table) -> None:
        with self._lock:
            self._tables[group] = table
            while len(self._tables) > 1 and sum(table.nbytes for table in self._tables.values()) > CACHE_BYTES:
                self._tables.popitem(last=False)


@dataclass(frozen=True)
class ParquetIndex:
    """The row groups of all files, in the order of their names."""

    files: tuple[str, ...]
    groups: tuple[tuple[int, int], ...]  # file's place in `files`, row group in it
    group_rows: tuple[int, ...]
    stamp: str
    cache: GroupCache = field(default_factory=GroupCache, compare=False, repr=False)

    def read_group(self, group: int, offsets: Sequence[int]) -> list[PreferenceRow]:
        table = self.cache.get(group)
        if table is None:
            table = self._fetch(group)
            self.cache.put(group, table)
        return [_row(table, offset) for offset in offsets]

    def _fetch(self, group: int) -> pa.Table:
        number, row_group = self.groups[group]
        try:
            with pq.ParquetFile(self.files[number]) as file:
                present = [name for name in (*COLUMNS, HAS_LABEL) if name in file.schema_arrow.names]
                return file.read_row_group(row_group, columns=present)
        except (OSError, pa.ArrowException) as error:
            fix = f"row group {row_group} cannot be read ({error}); fetch the file again, or take it out"
            raise ConfigError(FIELD, self.files[number], fix) from error


def index_parquet(files: Sequence[Path]) -> ParquetIndex:
    """The index of these files, from their footers alone: no image is read.

    Raises:
        ConfigError: files of several splits; one that is no whole parquet file, or lacks a column, or has it in
            another type; no rows at all.
    """
    splits = sorted({match[1] for path in files if (match := SPLIT.fullmatch(path.stem))})
    if len(splits) > 1:
        fix = f"holds the splits {', '.join(splits)}; choose one, as {files[0].parent}/{splits[0]}-*.parquet"
        raise ConfigError(FIELD, str(files[0].parent), fix)  # else the test set would be trained on
    groups, rows = [], []
    for number, path in enumerate(files):
        footer = _footer(path)
        for group in range(footer.num_row_groups):
            if footer.row_group(group).num_rows:
                groups.append((number, group))
                rows.append(footer.row_group(group).num_rows)
    if not rows:
        raise ConfigError(FIELD, ", ".join(map(str, files)), "holds no rows; set a file that has some")
    return ParquetIndex(tuple(map(str, files)), tuple(groups), tuple(rows), stamp_of(files))


def write_parquet(path: Path, rows: Iterable[PreferenceRow], rows_a_group: int = ROWS_A_GROUP) -> None:
    """Writes rows of any status, under a temporary name first. Every other row has its winner as the second image.

    A broken row is written as a preference with whatever it holds, so that a reader has to find its fault.
    """
    kinds = {"caption": pa.string(), "jpg_0": pa.binary(), "jpg_1": pa.binary()}
    kinds |= {"label_0": pa.float64(), "label_1": pa.float64(), "are_different": pa.bool_(), HAS_LABEL: pa.bool_()}
    schema = pa.schema(list(kinds.items()))
    numbered = enumerate(rows)
    with replacing(path) as partial, pq.ParquetWriter(partial, schema) as writer:
        while group := [_columns(number, row) for number, row in islice(numbered, rows_a_group)]:
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _footer(path: Path) -> pq.FileMetaData:
    try:
        footer = pq.read_metadata(path)
        schema = footer.schema.to_arrow_schema()
    except (OSError, pa.ArrowException) as error:
        fix = f"is no whole parquet file ({error}); fetch it again, or take it out"
        raise ConfigError(FIELD, str(path), fix) from error
    for name, (kind, fits) in COLUMNS.items():
        if name not in schema.names:
            fix = f"has no column {name!r} among {schema.names}; the Pick-a-Pic layout needs {', '.join(COLUMNS)}"
            raise ConfigError(FIELD, str(path), fix)
        if not fits(schema.field(name).type):
            fix = f"column {name!r} holds {schema.field(name).type}; the Pick-a-Pic layout has {kind} there"
            raise ConfigError(FIELD, str(path), fix)
    return footer


def _row(table: pa.Table, offset: int) -> PreferenceRow:
    """Labels first: the images of a tie are not looked at."""
    caption = _value(table, "caption", offset)
    labels = (_value(table, "label_0", offset), _value(table, "label_1", offset))
    answered = _value(table, HAS_LABEL, offset) if HAS_LABEL in table.column_names else labels != (None, None)
    if answered is False:
        return PreferenceRow(caption or "", None, None, UNLABELLED)
    if labels == (0.5, 0.5):
        return PreferenceRow(caption or "", None, None, TIE)
    if labels not in ((1, 0), (0, 1)):
        return broken(BAD_LABELS, caption or "")
    first, second = (_value(table, name, offset) for name in ("jpg_0", "jpg_1"))
    winner, loser = (first, second) if labels == (1, 0) else (second, first)
    return checked(caption, winner, loser)


def _value(table: pa.Table, column: str, offset: int) -> Any:
    try:
        return table[column][offset].as_py()
    except UnicodeDecodeError:  # parquet does not promise that a string is one
        return None


def _columns(number: int, row: PreferenceRow) -> dict[str, Any]:
    first, second = (row.winner, row.loser) if number % 2 == 0 else (row.loser, row.winner)
    preferred = 1.0 if number % 2 == 0 else 0.0
    labels = (0.5, 0.5) if row.status in (TIE, UNLABELLED) else (preferred, 1 - preferred)
    return {
        "caption": row.prompt or None,
        "jpg_0": first,
        "jpg_1": second,
        "label_0": labels[0],
        "label_1": labels[1],
        "are_different": first != second,
        HAS_LABEL: row.status != UNLABELLED,
    }
