"""Drawn styles: what a preference set's winners carry where no style LoRA and no img2img model can be had.

Image operations on finished pictures, no model and no randomness, so that a winner shows exactly what its loser shows
and differs in style alone. Shape letters: B images, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from rayalign.errors import ConfigError

PAPER, INK = 250.0, 15.0  # grey levels
PIXELS_A_PEN = 256  # the pen is one pixel wide up to this side, then in proportion

# Outlines, in levels over two pen widths. A change of shade up to the first is no border: lighting, and the hatched
# grounds of the toy models, would else be drawn as lines. A line begins at the second and is full ink at the third.
SHADE, LINE_FROM, LINE_FULL = 60.0, 20.0, 50.0
# Share of the colour that stays in a fill. More of it does not pass the toy's autoencoder as that colour (measured).
OUTLINE_COLOUR = 0.1

# Hatching. The toy's autoencoder (8 x 8 latents) renders stripes of this period and place and no finer ones; strokes
# darker than these it turns into other colours.
STROKE_PERIOD = 16
STROKE_DEPTH = 70.0
STROKE_EDGE = 4.0  # steepness of a stroke's border
HATCH_COLOUR = 0.8


def stylise(images_BHWC: np.ndarray, style: str) -> np.ndarray:
    """uint8 (B, H, W, 3) -> uint8 of the same shape, redrawn. The same picture gives the same bits, in any batch.

    Raises:
        ConfigError: no such style.
        ValueError: not uint8 (B, H, W, 3).
    """
    if style not in STYLES:
        raise ConfigError("style", style, f"no such drawn style; set one of {', '.join(STYLES)}")
    if images_BHWC.dtype != np.uint8 or images_BHWC.ndim != 4 or images_BHWC.shape[-1] != 3:
        raise ValueError(f"images must be uint8 (B, H, W, 3), got {images_BHWC.dtype} {images_BHWC.shape}")
    drawn = STYLES[style](images_BHWC.astype(np.float32))
    return np.rint(np.clip(drawn, 0, 255)).astype(np.uint8)


def outlines(images_BHWC: np.ndarray) -> np.ndarray:
    """A line drawing: borders in ink, what they enclose in a breath of its colour on paper.

        line = (border - LINE_FROM) / (LINE_FULL - LINE_FROM), in 0..1
        out  = line INK + (1 - line) (PAPER + OUTLINE_COLOUR (image - PAPER))

    float (B, H, W, 3) in 0..255 -> the same.
    """
    line = np.clip((_border(images_BHWC) - LINE_FROM) / (LINE_FULL - LINE_FROM), 0, 1)
    return line * INK + (1 - line) * _paled(images_BHWC, OUTLINE_COLOUR)


def hatching(images_BHWC: np.ndarray) -> np.ndarray:
    """Dark diagonal strokes over the whole picture, whose colours pale a little.

        stroke = sigmoid(STROKE_EDGE sin(2 pi (x + y) / period)), x and y in pixel centres
        out    = PAPER + HATCH_COLOUR (image - PAPER) - STROKE_DEPTH stroke

    float (B, H, W, 3) in 0..255 -> the same, below 0 where a stroke crosses black.
    """
    _, height, width, _ = images_BHWC.shape
    diagonal_HW = np.arange(height)[:, None] + np.arange(width) + 1.0
    wave_HW = np.sin(2 * math.pi * diagonal_HW / (STROKE_PERIOD * _pen(images_BHWC)))
    stroke_HW = 1 / (1 + np.exp(-STROKE_EDGE * wave_HW))
    return _paled(images_BHWC, HATCH_COLOUR) - STROKE_DEPTH * stroke_HW[..., None]


STYLES: dict[str, Callable[[np.ndarray], np.ndarray]] = {"outlines": outlines, "hatching": hatching}


def _paled(images_BHWC: np.ndarray, share: float) -> np.ndarray:
    return PAPER + share * (images_BHWC - PAPER)


def _pen(images_BHWC: np.ndarray) -> int:
    return max(1, round(min(images_BHWC.shape[1:3]) / PIXELS_A_PEN))


def _border(images_BHWC: np.ndarray) -> np.ndarray:
    """How much the colour changes at each pixel, (B, H, W, 1) in levels; of a change of shade, what passes SHADE.

    A change d = (dR, dG, dB) is its mean, the shade, and the rest, the hue: two colours of one lightness (blue on
    grey) have a border too, and a stripe of light has none.
    """
    pen, hue, shade = _pen(images_BHWC), 0.0, 0.0
    soft = _smooth(images_BHWC, pen)  # else sampling noise would be drawn
    for axis in (1, 2):
        change = _shifted(soft, axis, pen) - _shifted(soft, axis, -pen)
        mean = change.mean(axis=-1, keepdims=True)
        hue = hue + ((change - mean) ** 2).sum(axis=-1, keepdims=True)
        shade = shade + 3 * mean**2
    return np.hypot(np.sqrt(hue), np.maximum(np.sqrt(shade) - SHADE, 0))


def _smooth(images_BHWC: np.ndarray, radius: int) -> np.ndarray:
    """Mean over a square of 2 radius + 1 pixels a side."""
    steps = range(-radius, radius + 1)
    for axis in (1, 2):
        images_BHWC = np.mean([_shifted(images_BHWC, axis, step) for step in steps], axis=0)
    return images_BHWC


def _shifted(images_BHWC: np.ndarray, axis: int, step: int) -> np.ndarray:
    """The pixel `step` further along `axis`; beyond the border, the border's."""
    length = images_BHWC.shape[axis]
    return images_BHWC.take(np.clip(np.arange(length) + step, 0, length - 1), axis=axis)
