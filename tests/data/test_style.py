from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from rayalign.data.style import STYLES, stylise
from rayalign.errors import ConfigError
from rayalign.toy.shapes import draw_array, random_scene, scene_with


def plain(*colour: int, side: int = 64) -> np.ndarray:
    return np.full((1, side, side, 3), colour, np.uint8)


def scenes(n: int) -> np.ndarray:
    generator = random.Random(0)
    return np.stack([draw_array(random_scene(generator)) for _ in range(n)]).astype(np.uint8)


def test_a_border_becomes_ink_and_fills_pale() -> None:
    image = plain(50, 50, 50)
    image[:, :, 32:] = (250, 50, 50)
    drawn = stylise(image, "outlines")
    # The mean of three columns spreads the step over 31 and 32, the difference over two columns sees a third of it at
    # 30 and 33: (200, 0, 0) / 3 less its mean is (44, -22, -22), of norm 54.
    np.testing.assert_array_equal(drawn[:, :, 30:34], 15)
    # 250 + 0.1 (50 - 250) = 230.
    np.testing.assert_array_equal(drawn[:, :, :30], 230)
    assert (drawn[:, :, 34:] == (250, 230, 230)).all()


def test_colours_of_one_lightness_have_a_border_and_shading_has_none() -> None:
    image = plain(100, 100, 100)
    image[:, :, 32:] = (40, 100, 160)  # the mean of the channels is the same
    assert (stylise(image, "outlines")[:, :, 31:33] == 15).all()
    hatched = replace(scene_with("circle", "red", "white"), hatching=1.0, light=(22.0, 22.0))
    drawn = stylise(draw_array(hatched)[None].astype(np.uint8), "outlines")[0]
    corners = np.concatenate([drawn[:10].reshape(-1, 3), drawn[-10:].reshape(-1, 3)])  # ground, fully hatched
    assert corners.min() > 200
    assert (drawn == 15).any()


def test_strokes_run_along_the_diagonals() -> None:
    drawn = stylise(plain(100, 100, 100), "hatching")[0, ..., 0]
    # Paled to 250 + 0.8 (100 - 250) = 130. Where x + y + 1 is 4 or 20 the wave is 1: 130 - 70 / (1 + exp(-4)) = 61.3;
    # where it is 12 it is -1: 130 - 70 / (1 + exp(4)) = 128.7.
    assert (drawn[0, 3], drawn[3, 0], drawn[9, 10]) == (61, 61, 61)
    assert (drawn[0, 11], drawn[5, 6]) == (129, 129)


@pytest.mark.parametrize("style", STYLES)
def test_a_picture_is_redrawn_alike_in_any_batch(style: str) -> None:
    images = scenes(5)
    before = images.copy()
    drawn = stylise(images, style)
    assert drawn.dtype == np.uint8
    assert drawn.shape == images.shape
    np.testing.assert_array_equal(stylise(images[3:4], style), drawn[3:4])
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize(("style", "least"), [("outlines", 40), ("hatching", 25)])
def test_every_picture_changes_to_the_eye(style: str, least: float) -> None:
    """RMS change in levels; the toy's autoencoder alone changes such a picture by about 18 (measured)."""
    images = scenes(40)
    change = stylise(images, style).astype(float) - images
    assert np.sqrt((change**2).mean(axis=(1, 2, 3))).min() > least


def test_the_pen_grows_with_the_picture() -> None:
    image = plain(0, 0, 0, side=512)
    image[:, :, 256:] = 255
    # Means of five columns make a ramp of 0.2 a column; over four columns that is 0.4 or more at six of them, and 0.2
    # at one more on each side: sqrt(3) 255 0.2 - 60 = 28, half a line. With a pen of 1, at 64 pixels, there are four.
    assert (stylise(image, "outlines")[0, 0, :, 0] == 15).sum() == 6
    drawn = stylise(plain(100, 100, 100, side=512), "hatching")[0, ..., 0]
    assert (drawn[0, 7], drawn[0, 23]) == (61, 129)  # a period of 32


def test_refuses() -> None:
    with pytest.raises(ConfigError, match="outlines, hatching"):
        stylise(plain(0, 0, 0), "sketch")
    with pytest.raises(ValueError, match="uint8"):
        stylise(plain(0, 0, 0) / 255, "outlines")
    with pytest.raises(ValueError, match="uint8"):
        stylise(plain(0, 0, 0)[0], "outlines")
