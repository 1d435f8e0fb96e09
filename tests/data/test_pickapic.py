"""Tables are written by pyarrow here, column by column: the reader must not be held to our own writer."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayalign.data import pickapic
from rayalign.data.pickapic import index_parquet, write_parquet
from rayalign.data.preferences import (
    BAD_IMAGE,
    BAD_LABELS,
    NO_CAPTION,
    NO_IMAGE,
    PreferenceRow,
    count_rows,
    read_rows,
)
from rayalign.errors import ConfigError
from rayalign.records import BROKEN, KEPT, TIE, UNLABELLED


@pytest.fixture
def comparison(image: Callable[..., bytes]) -> Callable[..., dict[str, Any]]:
    """A row of the published layout, red against blue, red preferred."""

    def make(caption: str | None = "a cat", **changes: Any) -> dict[str, Any]:
        return {
            "are_different": True,
            "caption": caption,
            "has_label": True,
            "jpg_0": image((200, 30, 30)),
            "jpg_1": image((30, 30, 200)),
            "label_0": 1.0,
            "label_1": 0.0,
            "num_example_per_prompt": 1,
            "ranking_id": 7,
            "user_id": 1,
        } | changes

    return make


def write(path: Path, rows: list[dict[str, Any]], rows_a_group: int = 100) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=rows_a_group)
    return path


def test_labels_say_which_image_wins(tmp_path: Path, comparison: Callable, image: Callable) -> None:
    red, blue = image((200, 30, 30)), image((30, 30, 200))
    rows = [comparison(), comparison(label_0=0.0, label_1=1.0)]
    found = read_rows(index_parquet([write(tmp_path / "a.parquet", rows)]), [0, 1])
    assert found == [PreferenceRow("a cat", red, blue, KEPT), PreferenceRow("a cat", blue, red, KEPT)]


def test_every_bad_row_has_its_reason_and_none_raises(tmp_path: Path, comparison: Callable, image: Callable) -> None:
    cut = image()[:-20]
    rows = [
        comparison(),
        comparison(label_0=0.5, label_1=0.5),
        comparison(label_0=0.5, label_1=0.5, jpg_0=cut, caption=None),  # a tie: nobody looks at its images
        comparison(has_label=False, label_0=None, label_1=None),
        comparison(has_label=False),
        comparison(jpg_0=cut),
        comparison(jpg_1=b"not an image"),
        comparison(jpg_1=b""),
        comparison(jpg_1=None),
        comparison(caption=None),
        comparison(caption="  "),
        comparison(label_0=1.0, label_1=1.0),
        comparison(label_0=0.0, label_1=0.0),
        comparison(label_0=0.7, label_1=0.3),
        comparison(label_0=float("nan"), label_1=0.0),
        comparison(label_0=None, label_1=None),
    ]
    found = read_rows(index_parquet([write(tmp_path / "a.parquet", rows, 5)]), range(len(rows)))
    assert [row.status for row in found] == [KEPT, TIE, TIE, UNLABELLED, UNLABELLED] + [BROKEN] * 11
    assert [row.reason for row in found[5:]] == [BAD_IMAGE] * 3 + [NO_IMAGE] + [NO_CAPTION] * 2 + [BAD_LABELS] * 5
    assert all(row.winner is row.loser is None for row in found[1:])
    assert sum(count_rows(found).values()) == len(rows)


def test_a_caption_that_is_no_text_is_a_broken_row(tmp_path: Path, comparison: Callable) -> None:
    table = pa.Table.from_pylist([comparison(), comparison("a dog")])
    bad = pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\1\0\0\0\6\0\0\0"), pa.py_buffer(b"\xffa dog"))
    pq.write_table(table.set_column(table.column_names.index("caption"), "caption", bad), tmp_path / "a.parquet")
    found = read_rows(index_parquet([tmp_path / "a.parquet"]), [0, 1])
    assert [row.reason for row in found] == [NO_CAPTION, ""]
    assert found[1].prompt == "a dog"


def test_without_has_label_the_labels_say_it(tmp_path: Path, comparison: Callable) -> None:
    rows = [comparison(), comparison(label_0=None, label_1=None)]
    for row in rows:
        del row["has_label"]
    found = read_rows(index_parquet([write(tmp_path / "a.parquet", rows)]), [0, 1])
    assert [row.status for row in found] == [KEPT, UNLABELLED]


def test_whole_numbers_are_labels_too(tmp_path: Path, comparison: Callable) -> None:
    path = write(tmp_path / "a.parquet", [comparison(label_0=0, label_1=1)])
    assert read_rows(index_parquet([path]), [0])[0].status == KEPT


def test_files_and_row_groups_count_through(tmp_path: Path, comparison: Callable) -> None:
    first = write(tmp_path / "a.parquet", [comparison(f"a{i}") for i in range(7)], 3)
    empty = write(tmp_path / "b.parquet", [comparison()])
    pq.write_table(pq.read_table(empty).slice(0, 0), empty)
    second = write(tmp_path / "c.parquet", [comparison(f"c{i}") for i in range(2)], 3)
    index = index_parquet([first, empty, second])
    assert index.group_rows == (3, 3, 1, 2)
    captions = [row.prompt for row in read_rows(index, [8, 0, 6, 3, 7])]
    assert captions == ["c1", "a0", "a6", "a3", "c0"]


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, list[str]]]:
    """What is read of files, from here on: (row group, columns)."""
    calls: list[tuple[int, list[str]]] = []
    read = pq.ParquetFile.read_row_group

    def counted(self: pq.ParquetFile, group: int, columns: list[str]) -> pa.Table:
        calls.append((group, columns))
        return read(self, group, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    return calls


def test_only_what_is_needed_is_read(tmp_path: Path, comparison: Callable, fetched: list) -> None:
    index = index_parquet([write(tmp_path / "a.parquet", [comparison(f"a{i}") for i in range(40)], 10)])
    assert fetched == []  # the index comes from the footer
    read_rows(index, [11, 12, 35])
    read_rows(index, [31, 19])  # kept from before
    assert [group for group, _ in fetched] == [1, 3]
    assert set(fetched[0][1]) == {"caption", "jpg_0", "jpg_1", "label_0", "label_1", "has_label"}


def test_memory_for_groups_is_bounded(
    tmp_path: Path, comparison: Callable, fetched: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = index_parquet([write(tmp_path / "a.parquet", [comparison(f"a{i}") for i in range(40)], 10)])
    size = index._fetch(0).nbytes
    fetched.clear()
    monkeypatch.setattr(pickapic, "CACHE_BYTES", int(2.5 * size))  # two groups
    for row in (0, 10, 0, 20, 0, 10):
        read_rows(index, [row])
    # 0 and 1 are read; 2 takes the place of 1, which 0 was used after; 1 is read again.
    assert [group for group, _ in fetched] == [0, 1, 2, 1]
    monkeypatch.setattr(pickapic, "CACHE_BYTES", 1)
    fetched.clear()
    for row in (30, 31, 32):  # one is kept, however large
        read_rows(index, [row])
    assert [group for group, _ in fetched] == [3]


def test_an_index_travels_without_what_it_read(tmp_path: Path, comparison: Callable) -> None:
    index = index_parquet([write(tmp_path / "a.parquet", [comparison(f"a{i}") for i in range(40)])])
    before = len(pickle.dumps(index))
    row = read_rows(index, [5])
    assert len(pickle.dumps(index)) == before
    arrived = pickle.loads(pickle.dumps(index))
    assert arrived == index
    assert read_rows(arrived, [5]) == row


def test_a_stamp_is_of_one_state_of_the_set(tmp_path: Path, comparison: Callable) -> None:
    path = write(tmp_path / "a.parquet", [comparison("a"), comparison("b")])
    os.utime(path, (0, 0))  # long ago: two writes within one tick of the file system's clock would look alike
    first = index_parquet([path])
    assert index_parquet([path]).stamp == first.stamp
    again = index_parquet([write(path, [comparison("b"), comparison("a")])])
    assert again.group_rows == first.group_rows
    assert again.stamp != first.stamp


def test_a_cut_file_is_named(tmp_path: Path, comparison: Callable) -> None:
    good, bad = (write(tmp_path / name, [comparison()]) for name in ("a.parquet", "b.parquet"))
    bad.write_bytes(bad.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"b\.parquet.*no whole parquet file") as caught:
        index_parquet([good, bad])
    assert (caught.value.field, caught.value.value) == ("pairs.path", str(bad))


def test_a_row_group_that_is_damaged_is_an_error_and_no_bad_row(tmp_path: Path, comparison: Callable) -> None:
    path = write(tmp_path / "a.parquet", [comparison(f"a{i}") for i in range(20)], 10)
    data = bytearray(path.read_bytes())
    start = pq.read_metadata(path).row_group(1).column(1).dictionary_page_offset
    data[start : start + 60] = b"\xff" * 60
    path.write_bytes(bytes(data))
    index = index_parquet([path])
    assert read_rows(index, [0])[0].status == KEPT
    with pytest.raises(ConfigError, match=r"a\.parquet.*row group 1 cannot be read"):
        read_rows(index, [10])


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("label_0", None, "has no column 'label_0'"),
        ("jpg_1", ["a.jpg"], r"'jpg_1' holds string; the Pick-a-Pic layout has binary"),
        ("label_1", ["left"], r"'label_1' holds string; the Pick-a-Pic layout has numbers"),
        ("caption", [3], r"'caption' holds int64; the Pick-a-Pic layout has strings"),
    ],
)
def test_another_layout_is_refused(
    tmp_path: Path, comparison: Callable, column: str, values: list | None, message: str
) -> None:
    row = comparison()
    row.pop(column)
    path = write(tmp_path / "a.parquet", [row | ({column: values[0]} if values else {})])
    with pytest.raises(ConfigError, match=message) as caught:
        index_parquet([path])
    assert caught.value.value == str(path)


def test_splits_are_not_mixed(tmp_path: Path, comparison: Callable) -> None:
    names = ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet")
    train_0, train_1, test = (write(tmp_path / name, [comparison()]) for name in names)
    with pytest.raises(ConfigError, match=r"the splits test, train; choose one, as .*/test-\*\.parquet"):
        index_parquet([test, train_0, train_1])
    assert index_parquet([train_0, train_1]).group_rows == (1, 1)


def test_a_set_without_rows_is_refused(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [])
    with pytest.raises(ConfigError, match="holds no rows"):
        index_parquet([tmp_path / "a.parquet"])


def test_what_is_written_is_read_as_it_was(tmp_path: Path, image: Callable) -> None:
    red, blue = image((200, 30, 30)), image((30, 30, 200), format="PNG")
    kept = [PreferenceRow(f"number {i}", red, blue) for i in range(25)]
    rows = [*kept, PreferenceRow("t", None, None, TIE), PreferenceRow("u", None, None, UNLABELLED)]
    rows += [PreferenceRow("", red, blue, BROKEN, NO_CAPTION), PreferenceRow("b", red[:50], blue, BROKEN, BAD_IMAGE)]
    path = tmp_path / "a.parquet"
    write_parquet(path, iter(rows), rows_a_group=10)
    index = index_parquet([path])
    assert index.group_rows == (10, 10, 9)
    found = read_rows(index, range(29))
    assert found[:27] == rows[:27]
    assert [row.reason for row in found[27:]] == [NO_CAPTION, BAD_IMAGE]
    assert list(tmp_path.iterdir()) == [path]
    # Winners stand on both sides: a reader that took the first image for the winner would be found out.
    assert Counter(pq.read_table(path)["label_0"].to_pylist()[:25]) == {1.0: 13, 0.0: 12}
