"""The actor that draws and restyles, called by hand, and the pairs that come of its pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from rayalign.config.style import StyleConfig
from rayalign.data.images import decode
from rayalign.data.style import stylise
from rayalign.data.style_pictures import PictureRow, picture_rows
from rayalign.errors import RunStopped
from rayalign.models.export import save_lora
from rayalign.models.families import find_family
from rayalign.models.load import load_model
from rayalign.pipeline.style_pictures import Picture, StyleActor, _pairs
from rayalign.records import KEPT, TIE

ROWS = picture_rows("training", [("a red circle on a white ground", 11), ("a blue square on a black ground", 12)])


def job(**style: Any) -> StyleConfig:
    return StyleConfig.model_validate(
        {"model": {"path": "toy-sdxl", "tuning": {"kind": "full"}}, "sampler": {"num_steps": 4}, "style": style}
    )


def drawn(rows: list[PictureRow], **style: Any) -> tuple[np.ndarray, np.ndarray]:
    table = StyleActor(job(**style))(pa.Table.from_pylist([row._asdict() for row in rows]))
    assert table["prompt"].to_pylist() == [row.prompt for row in rows]
    base, restyled = (table[name].combine_chunks().to_numpy_ndarray() for name in ("base", "restyled"))
    return base, restyled


def test_a_drawn_style() -> None:
    base, restyled = drawn(ROWS, kind="drawn", name="outlines")
    assert (base.shape, base.dtype) == ((2, 64, 64, 3), np.uint8)
    np.testing.assert_array_equal(restyled, stylise(base, "outlines"))
    # A picture is a function of its prompt and seed.
    np.testing.assert_array_equal(drawn(ROWS[::-1], kind="drawn")[0][::-1], base)


def test_image_to_image_knows_words_that_the_row_does_not() -> None:
    base, first = drawn(ROWS, kind="img2img", suffix=" and a white star", strength=0.9)
    _, other = drawn(ROWS, kind="img2img", suffix=" and a green ring", strength=0.9)
    np.testing.assert_array_equal(base, drawn(ROWS, kind="drawn")[0])
    assert not np.array_equal(first, base)
    assert not np.array_equal(first, other)


def test_a_lora_restyles_and_leaves_the_base_alone(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    model = load_model(StyleConfig.model_validate({"model": {"path": "toy-sdxl"}}), "cpu")
    weights = {
        name: (0.2 * draw.standard_normal(value.shape)).astype(np.float32)
        for name, value in model.weights.state("policy").items()
    }
    save_lora(tmp_path, find_family("toy-sdxl"), weights)
    base, restyled = drawn(ROWS, kind="lora", path=str(tmp_path))
    np.testing.assert_array_equal(base, drawn(ROWS, kind="drawn")[0])
    assert not np.array_equal(restyled, base)


def test_a_folder_and_an_export(tmp_path: Path) -> None:
    for row, grey in zip(ROWS, (50, 90), strict=True):
        (tmp_path / "training").mkdir(exist_ok=True)
        Image.new("RGB", (64, 64), (grey,) * 3).save(tmp_path / "training" / f"{row.number}.png")
    _, restyled = drawn(ROWS, kind="folder", path=str(tmp_path))
    assert restyled[:, 0, 0, 0].tolist() == [50, 90]
    base, same = drawn(ROWS, kind="folder", path=str(tmp_path), export=True)
    np.testing.assert_array_equal(base, same)


def pictures(*greys: tuple[int, int]) -> list[Picture]:
    images = [[np.full((8, 8, 3), grey, np.uint8) for grey in pair] for pair in greys]
    rows = picture_rows("training", [(f"prompt {number}", number) for number in range(len(greys))])
    return [Picture(row, *pair) for row, pair in zip(rows, images, strict=True)]


def test_the_restyled_picture_wins_and_an_unchanged_one_is_a_tie() -> None:
    rows = list(_pairs(iter(pictures((10, 20), (30, 30)))))
    assert [row.status for row in rows] == [KEPT, TIE]
    assert [row.prompt for row in rows] == ["prompt 0", "prompt 1"]
    winner, loser = (decode(data or b"", 8) * 255 for data in (rows[0].winner, rows[0].loser))
    assert (winner.mean(), loser.mean()) == (pytest.approx(20), pytest.approx(10))


def test_a_style_that_changes_nothing_stops_the_job() -> None:
    with pytest.raises(RunStopped, match="the style changes no picture of the base model's"):
        list(_pairs(iter(pictures((30, 30), (40, 40)))))
