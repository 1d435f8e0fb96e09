import numpy as np
import pytest
from PIL import ImageFont

from rayalign.evaluation.grids import (
    FONT_SIZE,
    GAP,
    LINE_HEIGHT,
    MAX_LINES,
    before_after_grid,
    enlarge,
    grid,
    wrap,
)
from rayalign.evaluation.image_set import ImageSet

RED, BLUE = np.full((64, 64, 3), (255, 0, 0), np.uint8), np.full((64, 64, 3), (0, 0, 255), np.uint8)


def test_tiny_pictures_grow_by_whole_factors():
    checker = np.zeros((50, 60, 3), np.uint8)
    checker[0, 0] = 255
    large = np.asarray(enlarge(checker))
    assert large.shape == (150, 180, 3)  # 3 is the smallest factor that brings 50 to at least 128
    assert (large[:3, :3] == 255).all()
    assert large.sum() == 9 * 3 * 255
    assert enlarge(np.zeros((512, 512, 3), np.uint8)).size == (512, 512)


def test_pictures_stand_row_by_row():
    canvas = np.asarray(grid([RED, BLUE, BLUE], columns=2))
    assert canvas.shape == (GAP + 2 * (128 + GAP), GAP + 2 * (128 + GAP), 3)
    assert (canvas[GAP, GAP] == (255, 0, 0)).all()
    assert (canvas[GAP, GAP + 128 + GAP] == (0, 0, 255)).all()
    assert (canvas[-GAP - 1, -GAP - 1] == 255).all()  # the fourth cell is empty


def test_captions_are_drawn_below():
    plain, captioned = np.asarray(grid([RED], 1)), np.asarray(grid([RED], 1, ["a cat"]))
    assert captioned.shape[0] == plain.shape[0] + LINE_HEIGHT + 4
    assert (captioned[GAP + 128 + 2 :] < 128).any()


def test_captions_fit_their_picture():
    font = ImageFont.load_default(FONT_SIZE)
    lines = wrap("a very long prompt " * 20 + "x" * 300, 128, font)
    assert len(lines) == MAX_LINES
    assert lines[-1].endswith("…")
    assert all(font.getlength(line) <= 128 for line in lines)
    assert all(font.getlength(line) <= 128 for line in wrap("y" * 40, 128, font))
    assert wrap("", 128, font) == []


def test_a_prompt_in_any_script_is_no_error():
    assert grid([RED], 1, ["一只猫 \U0001f63a"]).size[0] == 128 + 2 * GAP


def test_pairs_show_before_left_and_after_right():
    prompts, seeds = ["a cat", "a cat", "a dog"], [0, 1, 2]
    before, after = (ImageSet(prompts, seeds, np.stack([colour] * 3)) for colour in (RED, BLUE))
    canvas = np.asarray(before_after_grid(before, after, n=2))
    middle = GAP + LINE_HEIGHT + 64
    assert (canvas[middle, GAP + 64] == (255, 0, 0)).all()
    assert (canvas[middle, GAP + 128 + 2 + 64] == (0, 0, 255)).all()
    assert canvas.shape[1] == GAP + 2 * (258 + GAP)  # two cells of 128 + 2 + 128


def test_refusals():
    with pytest.raises(ValueError, match="needs a picture"):
        grid([], 2)
    with pytest.raises(ValueError, match="2 captions for 1"):
        grid([RED], 1, ["a", "b"])
