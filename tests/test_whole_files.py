"""A file that is replaced is there whole, as it was before or as it is now."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayalign.whole_files import replacing, write_whole


def test_what_is_there_stays_until_the_end(tmp_path: Path) -> None:
    file = tmp_path / "numbers.json"
    write_whole(file, "old")
    with replacing(file) as partial:
        partial.write_text("new")
        assert file.read_text() == "old"
    assert file.read_text() == "new"
    assert [found.name for found in tmp_path.iterdir()] == ["numbers.json"]


def test_an_error_leaves_the_old_file_and_the_next_writer_the_new(tmp_path: Path) -> None:
    file = tmp_path / "numbers.json"
    write_whole(file, "old")

    def fill_the_disk() -> None:
        with replacing(file) as partial:
            partial.write_text("ha")
            raise OSError("no room")

    with pytest.raises(OSError, match="no room"):
        fill_the_disk()
    assert file.read_text() == "old"
    write_whole(file, "größer")
    assert file.read_bytes() == "größer".encode()
    assert [found.name for found in tmp_path.iterdir()] == ["numbers.json"]
