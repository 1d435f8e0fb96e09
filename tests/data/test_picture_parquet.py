"""Parquet with pictures, in the forms that the hub's datasets have."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayalign.config.score import ScoreConfig
from rayalign.data.picture import PictureSet
from rayalign.data.pictures import open_pictures
from rayalign.errors import ConfigError, RayalignError


def opened(path: Path, **settings: object) -> PictureSet:
    tree = {"images": str(path), "scorers": [{"scorer": "jpeg"}], **settings}
    return open_pictures(ScoreConfig.model_validate(tree))


def read(pictures: PictureSet) -> list[tuple]:
    return [tuple(picture) for part in pictures.parts for picture in pictures.reader(part)]


def test_bytes_by_row_groups(tmp_path: Path) -> None:
    table = pa.table({"image": [b"a", b"b", None], "caption": ["a cat", " ", None], "name": ["x", "y", "z"]})
    pq.write_table(table, tmp_path / "0.parquet", row_group_size=2)
    pq.write_table(table.slice(0, 1), tmp_path / "1.parquet")
    pictures = opened(tmp_path)
    assert pictures.part_rows == [2, 1, 1]  # a row group is a part
    assert read(pictures) == [
        ("0.parquet:0", "a cat", b"a", ""),
        ("0.parquet:1", None, b"b", ""),
        ("0.parquet:2", None, None, "the row has no image"),
        ("1.parquet:0", "a cat", b"a", ""),
    ]
    assert [source.name for source in pictures.sources] == ["0.parquet", "1.parquet"]
    assert pictures.prompts_from == "column caption"
    assert [row[:2] for row in read(opened(tmp_path, id_column="name", prompt="p"))][:2] == [("x", "p"), ("y", "p")]


def test_the_hubs_images_and_paths(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"file")
    image = [{"bytes": b"inside", "path": "x.png"}, {"bytes": None, "path": "a.png"}, {"bytes": None, "path": None}]
    pq.write_table(pa.table({"image": image, "file": ["a.png", "no.png", None]}), tmp_path / "0.parquet")
    assert [row[2:] for row in read(opened(tmp_path / "0.parquet"))] == [
        (b"inside", ""),
        (b"file", ""),
        (None, "the row has no image"),
    ]
    assert [row[2:] for row in read(opened(tmp_path / "*.parquet", image_column="file"))] == [
        (b"file", ""),
        (None, "the file is not there"),
        (None, "the row has no image"),
    ]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"image_column": "picture"}, "image_column = 'picture'.*has no such column; set one of number, text, image"),
        ({"prompt_column": "caption"}, "prompt_column = 'caption'.*set one of number, text, image"),
        ({"id_column": "key"}, "id_column = 'key'.*no such column"),
        ({"image_column": "number"}, "has it as int64; set a column of encoded images"),
        ({"prompt_column": "number"}, "has it as int64; set a column of strings"),
    ],
)
def test_columns_that_cannot_be_used_are_refused(tmp_path: Path, settings: dict, said: str) -> None:
    pq.write_table(pa.table({"number": [1], "text": ["a"], "image": [b"a"]}), tmp_path / "0.parquet")
    with pytest.raises(ConfigError, match=said):
        opened(tmp_path, **settings)


def test_files_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "0.parquet"
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), file)
    with pytest.raises(ConfigError, match="holds no rows"):
        opened(file)
    pq.write_table(pa.table({"other": [b"a"]}), tmp_path / "1.parquet")
    with pytest.raises(ConfigError, match=r"image_column = None: .*1.parquet has no such column; set one of other"):
        opened(tmp_path)
    file.write_bytes(b"PAR1 cut off")
    with pytest.raises(ConfigError, match="is no whole parquet file"):
        opened(file)


def test_a_file_damaged_meanwhile_is_no_bad_row(tmp_path: Path) -> None:
    file = tmp_path / "0.parquet"
    pq.write_table(pa.table({"image": [b"a"]}), file)
    pictures = opened(file)
    file.unlink()
    with pytest.raises(RayalignError, match=r"row group 0 of .* cannot be read"):
        read(pictures)
