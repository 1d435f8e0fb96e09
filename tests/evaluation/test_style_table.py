from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rayalign.evaluation.image_set import ImageSet
from rayalign.evaluation.style_table import measure_style, style_grid, style_table

PROMPTS, SEEDS = ["a cat", "a cat", "a dog", "a dog"], [1, 2, 1, 2]


class MeanColour:
    """Three features of a picture, which a test can work out."""

    name = "mean colour"

    def __call__(self, images_BCHW: np.ndarray) -> np.ndarray:
        return images_BCHW.mean(axis=(2, 3)) * 255


def pictures(*reds: int, prompts: list[str] = PROMPTS, score: float = 0.5) -> ImageSet:
    images = np.zeros((4, 8, 8, 3), np.uint8)
    images[..., 0] = np.array(reds)[:, None, None]
    return ImageSet(prompts, SEEDS, images, {"clip": np.full(4, score, np.float32)})


def sets() -> dict[str, ImageSet]:
    base, target = pictures(0, 2, 4, 6), pictures(10, 12, 14, 16, score=0.25)
    return {"base": base, "target": target, "SFT": pictures(9, 11, 13, 15, score=0.375)}


def test_distances_are_to_the_target() -> None:
    report = measure_style(sets(), MeanColour())
    by_name = {row["name"]: row for row in report["rows"]}
    assert list(by_name) == ["base", "target", "SFT"]
    # Equal covariances: FID is the squared distance of the means, (3 - 13)^2 and (12 - 13)^2.
    assert by_name["base"]["fid"] == pytest.approx(100, rel=1e-4)
    assert by_name["SFT"]["fid"] == pytest.approx(1, rel=1e-4)
    assert by_name["SFT"]["kid"]["mean"] < by_name["base"]["kid"]["mean"]
    assert by_name["base"]["kid"]["std"] > 0
    assert (by_name["target"]["fid"], by_name["target"]["kid"]) == (None, None)
    assert [row["scores"]["clip"]["mean"] for row in report["rows"]] == [0.5, 0.25, 0.375]
    assert (report["extractor"], report["num_pictures"], report["num_prompts"]) == ("mean colour", 4, 2)
    assert report["fid_note"] == ""  # four pictures for three features


def test_sets_of_other_rows_are_refused() -> None:
    other = sets() | {"DPO": pictures(1, 2, 3, 4, prompts=PROMPTS[::-1])}
    with pytest.raises(ValueError, match="the same prompts with the same seeds"):
        measure_style(other, MeanColour())
    with pytest.raises(ValueError, match="the same prompts with the same seeds"):
        style_grid(other)


def test_the_table_says_what_its_numbers_are() -> None:
    rows: list[dict[str, Any]] = [
        {"name": "base", "fid": 55.731, "kid": {"mean": 2.5087, "std": 0.1975}},
        {"name": "target", "fid": None, "kid": None},
        {"name": "RPO", "fid": 1234.5, "kid": {"mean": -0.0123, "std": 0.0045}},
    ]
    score = {"clip": {"mean": 0.775, "ci95": [0.743, 0.806], "n": 96}}
    table = style_table(
        {"extractor": "toy-clip", "num_pictures": 96, "num_prompts": 48, "fid_note": "FID is biased: few"}
        | {"rows": [row | {"scores": score} for row in rows]}
    )
    assert table.isascii()
    # 2.5087 +- 0.1975 is known to two decimals, -0.0123 +- 0.0045 to four.
    assert table.splitlines()[:5] == [
        "| model  | KID               | FID     | clip                 |",
        "|--------|-------------------|---------|----------------------|",
        "| base   | 2.51 +- 0.20      | 55.73   | 0.775 [0.743, 0.806] |",
        "| target | -                 | -       | 0.775 [0.743, 0.806] |",
        "| RPO    | -0.0123 +- 0.0045 | 1234.50 | 0.775 [0.743, 0.806] |",
    ]
    assert "96 held-out pictures of 48 prompts, seen by toy-clip." in table
    assert table.endswith("FID is biased: few")


def test_the_grid_has_a_column_for_each_set() -> None:
    picture = style_grid(sets(), num_prompts=2)
    # Pictures of 8 pixels become 128, with 8 between and around them.
    assert picture.width == 3 * (128 + 8) + 8
    reds = [picture.getpixel((8 + 136 * column + 64, 8 + 64)) for column in range(3)]
    assert reds == [(0, 0, 0), (10, 0, 0), (9, 0, 0)]
