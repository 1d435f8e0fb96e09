"""The result of a scoring: whole files or none, and no scores of one thing beside those of another."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayalign.data.picture import Source
from rayalign.data.score_files import ScoreFiles
from rayalign.errors import ConfigError

SOURCES = [Source("a.png", 10, 1, "a cat"), Source("b.png", 20, 2), Source("c.png", 30, 3)]
SETTINGS = {"scorers": ["jpeg"], "batch": 4}


def files(folder: Path) -> ScoreFiles:
    return ScoreFiles(folder / "out", [2, 1], ["jpeg"])


def table(*ids: str) -> pa.Table:
    rows = [{"reason": None, "jpeg": 1.5, "id": name, "prompt": None, "part": 0} for name in ids]
    return pa.Table.from_pylist(rows)


def test_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    first = files(tmp_path)
    first.begin(SETTINGS, SOURCES)
    assert first.missing() == [0, 1]
    first.write(1, table("c"))
    # What a killed process leaves of a file is not that file.
    (tmp_path / "out" / "scores" / ".part-00000.parquet.partial").write_bytes(b"PAR1")
    again = files(tmp_path)
    again.begin(SETTINGS, SOURCES)
    assert again.missing() == [0]
    again.write(0, table("a", "b"))
    assert again.read().column_names == ["id", "prompt", "jpeg", "reason"]
    assert again.read()["id"].to_pylist() == ["a", "b", "c"]
    # Anybody's reader takes the folder as one table.
    assert pq.read_table(tmp_path / "out" / "scores").num_rows == 3


def test_a_part_of_another_length_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="part 0 has 1 rows, and 2 are wanted"):
        files(tmp_path).write(0, table("a"))


def test_other_settings_are_refused(tmp_path: Path) -> None:
    files(tmp_path).begin(SETTINGS, SOURCES)
    with pytest.raises(ConfigError, match=r"other settings \(batch 4 -> 5\); set another output"):
        files(tmp_path).begin(SETTINGS | {"batch": 5}, SOURCES)


def test_another_input_is_refused_by_what_changed(tmp_path: Path) -> None:
    files(tmp_path).begin(SETTINGS, SOURCES)
    now = [SOURCES[0]._replace(prompt="a dog"), SOURCES[1]._replace(size=21), Source("d.png", 1, 1)]
    with pytest.raises(ConfigError, match=r"\(1 new, such as d.png; 1 gone, such as c.png; 2 changed, such as a.png\)"):
        files(tmp_path).begin(SETTINGS, now)


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(ConfigError, match="holds other files"):
        files(tmp_path).begin(SETTINGS, SOURCES)
