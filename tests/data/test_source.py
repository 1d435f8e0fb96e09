from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rayalign.data.preferences import PreferenceRow, num_rows, read_rows
from rayalign.data.source import open_pairs, write_pairs
from rayalign.errors import ConfigError


@pytest.fixture
def rows(image: Callable[..., bytes]) -> list[PreferenceRow]:
    return [PreferenceRow(f"number {i}", image((i, 0, 0)), image((0, i, 0))) for i in range(5)]


@pytest.mark.parametrize("name", ["set.parquet", "new/set.parquet", "set"])
def test_a_path_says_how_to_write_and_to_read(tmp_path: Path, rows: list[PreferenceRow], name: str) -> None:
    write_pairs(tmp_path / name, rows)
    index = open_pairs(tmp_path / name)
    assert num_rows(index) == 5
    assert read_rows(index, [4, 0]) == [rows[4], rows[0]]


def test_parquet_files_in_folders_and_by_pattern(tmp_path: Path, rows: list[PreferenceRow]) -> None:
    for name in ("data/train-00001-of-00002.parquet", "data/train-00000-of-00002.parquet"):
        write_pairs(tmp_path / name, rows[:2] if "00000-of" in name else rows[2:])
    write_pairs(tmp_path / "data" / "test-00000-of-00001.parquet", rows)
    with pytest.raises(ConfigError, match="the splits test, train"):
        open_pairs(tmp_path)
    index = open_pairs(f"{tmp_path}/data/train-*.parquet")
    assert read_rows(index, range(num_rows(index))) == rows  # files in the order of their names


def test_what_a_writer_left_half_done_is_no_part_of_a_folder(tmp_path: Path, rows: list[PreferenceRow]) -> None:
    write_pairs(tmp_path / "set" / "a.parquet", rows)
    for name in (".b.parquet", "_c.parquet"):
        (tmp_path / "set" / name).write_bytes(b"half")
    assert num_rows(open_pairs(tmp_path / "set")) == 5


def test_a_jsonl_file(tmp_path: Path, rows: list[PreferenceRow]) -> None:
    write_pairs(tmp_path / "set", rows)
    pair = '{"prompt": "a", "winner": "set/winners/000001.jpeg", "loser": "set/losers/000001.jpeg"}'
    (tmp_path / "set.jsonl").write_text(pair)
    found = read_rows(open_pairs(tmp_path / "set.jsonl"), [0])
    assert found == [PreferenceRow("a", rows[1].winner, rows[1].loser)]


@pytest.mark.parametrize(
    ("path", "message"),
    [("", "is empty"), ("none", "does not exist"), (".", "holds no such thing"), ("a.csv", "holds no such thing")],
)
def test_anything_else_is_refused_and_what_is_expected_is_said(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "a.csv").write_text("prompt,winner,loser\n")
    with pytest.raises(ConfigError, match=rf"pairs\.path.*{message}; set parquet .*\.jsonl .*winners/ and losers/"):
        open_pairs(path and tmp_path / path)


@pytest.mark.parametrize("name", ["set.parquet", "set"])
def test_nothing_is_overwritten(tmp_path: Path, rows: list[PreferenceRow], name: str) -> None:
    write_pairs(tmp_path / name, rows)
    with pytest.raises(ConfigError, match="exists already"):
        write_pairs(tmp_path / name, rows[:1])
    assert num_rows(open_pairs(tmp_path / name)) == 5


@pytest.mark.parametrize("name", ["set.parquet", "set"])
def test_what_broke_off_does_not_stand_there(tmp_path: Path, rows: list[PreferenceRow], name: str) -> None:
    def breaking():
        yield rows[0]
        raise RuntimeError("the model ran out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        write_pairs(tmp_path / name, breaking())
    assert not (tmp_path / name).exists()
    write_pairs(tmp_path / name, rows)
    assert num_rows(open_pairs(tmp_path / name)) == 5
