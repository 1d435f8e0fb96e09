from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rayalign.config.style import StyleConfig
from rayalign.data.style_pictures import FolderPictures, picture_rows, training_rows
from rayalign.errors import ConfigError


def config(folder: Path, prompts: list[str], **changes: Any) -> StyleConfig:
    file = folder / "prompts.txt"
    file.write_text("\n".join(prompts))
    return StyleConfig.model_validate({"prompts": {"source": str(file)}} | changes)


def save(file: Path, grey: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (grey,) * 3).save(file)


def test_training_takes_the_prompts_in_turn_but_not_the_held_out_ones(tmp_path: Path) -> None:
    heldout = picture_rows("heldout", [("cat", 1), ("dog", 1)])
    rows = training_rows(config(tmp_path, ["cat", "dog", "fox", "cow", "bee"], num_pairs=7), heldout)
    assert [row.number for row in rows] == list(range(7))
    # Three prompts are left: two whole rounds in one order, and the first of the third.
    first = [row.prompt for row in rows[:3]]
    assert sorted(first) == ["bee", "cow", "fox"]
    assert [row.prompt for row in rows] == [*first, *first, first[0]]
    assert [row.turn for row in rows] == [0, 0, 0, 1, 1, 1, 2]
    assert len({row.seed for row in rows}) == 7


def test_training_is_the_same_again_and_another_with_another_seed(tmp_path: Path) -> None:
    prompts = [f"prompt {number}" for number in range(20)]
    first, again, other = (training_rows(config(tmp_path, prompts, num_pairs=20, seed=s), []) for s in (0, 0, 1))
    assert first == again
    assert [row.prompt for row in first] != [row.prompt for row in other]
    assert not {row.seed for row in first} & {row.seed for row in other}


def test_held_out_prompts_may_not_be_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"all its prompts are held out; set prompts\.heldout to another set"):
        training_rows(config(tmp_path, ["cat"]), picture_rows("heldout", [("cat", 1)]))


def test_pictures_are_found_by_number(tmp_path: Path) -> None:
    for part, number, grey in (("training", 0, 10), ("training", 1, 20), ("heldout", 1, 30)):
        save(tmp_path / part / f"{number:06d}-whatever.png", grey)
    (tmp_path / "training" / "0.txt").write_text("no picture")
    pictures = FolderPictures(str(tmp_path))
    rows = [*picture_rows("training", [("cat", 1), ("dog", 2)]), *picture_rows("heldout", [("fox", 3), ("cow", 4)])]
    found = pictures.read([rows[1], rows[3], rows[0]], 8)
    assert (found.shape, found.dtype) == ((3, 8, 8, 3), np.uint8)
    assert found[:, 0, 0, 0].tolist() == [20, 30, 10]
    with pytest.raises(ConfigError, match="1 of 4 pictures have no restyled one, such as number 0 of heldout, 'fox'"):
        pictures.check(rows)
    save(tmp_path / "training" / "1.jpg", 0)
    with pytest.raises(ConfigError, match="two files have the number 1; leave one"):
        FolderPictures(str(tmp_path)).check(rows)


def test_pictures_are_found_by_prompt_a_prompts_own_in_turn(tmp_path: Path) -> None:
    prompts = {"b.png": "a cat", "a.png": "a cat", "7.png": "a dog"}
    for name, grey in (("b.png", 20), ("a.png", 10), ("7.png", 30)):
        save(tmp_path / "training" / name, grey)
    (tmp_path / "training" / "prompts.json").write_text(json.dumps(prompts))
    rows = picture_rows("training", [("a cat", 1), ("a dog", 1), ("a cat", 2), ("a cat", 3)])
    assert FolderPictures(str(tmp_path)).read(rows, 8)[:, 0, 0, 0].tolist() == [10, 30, 20, 10]
    # Where prompts are listed, a number is none: 7.png is not the seventh picture.
    fox = picture_rows("training", [("a fox", 1)] * 8)
    assert FolderPictures(str(tmp_path)).find(fox[7]) is None


@pytest.mark.parametrize(
    ("text", "message"), [("{", "cannot be read"), ("[]", 'is no object; set {"cat.png": "a cat"}')]
)
def test_prompts_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    save(tmp_path / "training" / "0.png", 0)
    (tmp_path / "training" / "prompts.json").write_text(text)
    with pytest.raises(ConfigError) as caught:
        FolderPictures(str(tmp_path)).check(picture_rows("training", [("a cat", 1)]))
    assert message in str(caught.value)


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    file = tmp_path / "training" / "0.png"
    save(file, 5)
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(ConfigError, match=r"0.png.*no image.*replace the file"):
        FolderPictures(str(tmp_path)).read(picture_rows("training", [("a cat", 1)]), 8)
