"""Says what a picture of one shape shows, by looking at pixels: no model, so it can check the models.

It is right on nearly all drawn scenes of one shape; on generated pictures it judges a
drawing's shape strictly.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rayalign.toy import shapes

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

FAR = 45.0
"""A pixel is part of a shape when its colour is this far from the ground's."""

SHADE = 68.0
"""So much lighter or darker (of 441) counts for nothing: that is what hatching and lighting do to a ground."""

_BOX = 24


@dataclass(frozen=True)
class Seen:
    """What the judge sees; `shape` and `colour` are '' where nothing stands out from the ground."""

    shape: str
    colour: str
    ground: str


def judge(picture: Image.Image) -> Seen:
    """What `picture` (RGB, SIDE x SIDE) shows, taken to be one shape on a ground."""
    import numpy as np

    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32)
    edges = (pixels[:3], pixels[-3:], pixels[:, :2], pixels[:, -2:])
    ground_colour = np.median(np.concatenate([edge.reshape(-1, 3) for edge in edges]), axis=0)
    ground = _nearest(ground_colour[None], shapes.GROUNDS)[0]
    mask = _cleaned(_distance(pixels - ground_colour) > FAR)
    if mask.sum() < 20:
        return Seen("", "", ground)
    # A vote of the shape's pixels; those that look like the ground are its blurred edge or an outline.
    votes = [name for name in _nearest(pixels[mask], shapes.COLOURS) if name != ground]
    colour = max(sorted(set(votes)), key=votes.count, default="")
    boxed = _boxed(mask)
    fits = {shape: _overlap(boxed, template) for shape, template in _templates().items()}
    best = max(fits, key=lambda shape: fits[shape])
    # An outlined ring has so small a hole that it overlaps more with a circle.
    middle = boxed[_BOX // 2 - 2 : _BOX // 2 + 2, _BOX // 2 - 2 : _BOX // 2 + 2].mean()
    return Seen("ring" if best == "circle" and middle < 0.5 else best, colour, ground)


def _distance(difference: np.ndarray) -> np.ndarray:
    """How different colours look that differ by (H, W, 3), where a little shade does not count: (H, W)."""
    import numpy as np

    shade = difference.mean(-1, keepdims=True)
    hue = np.linalg.norm(difference - shade, axis=-1)
    return np.hypot(hue, np.maximum(np.abs(shade[..., 0]) * 3**0.5 - SHADE, 0))


def _nearest(pixels: np.ndarray, palette: dict[str, tuple[int, int, int]]) -> list[str]:
    """The palette's name nearest to each of the pixels (N, 3)."""
    import numpy as np

    names = list(palette)
    colours = np.asarray(list(palette.values()), dtype=np.float32)
    distance = np.linalg.norm(pixels[:, None] - colours, axis=-1)
    return [names[index] for index in distance.argmin(1)]


def _cleaned(mask: np.ndarray) -> np.ndarray:
    """`mask` without the specks that strong hatching leaves."""
    import numpy as np
    from PIL import Image, ImageFilter

    picture = Image.fromarray((mask * 255).astype(np.uint8))
    return np.asarray(picture.filter(ImageFilter.MedianFilter(3)).filter(ImageFilter.MedianFilter(3))) > 127


def _boxed(mask: np.ndarray) -> np.ndarray:
    """The part of `mask` in its bounding box, as (_BOX, _BOX) in 0..1."""
    import numpy as np
    from PIL import Image

    # Thinly filled rows and columns are left out: stray pixels must not widen the box.
    rows, columns = (np.flatnonzero(mask.sum(axis) > 0.1 * mask.sum(axis).max()) for axis in (1, 0))
    if len(rows) < 2 or len(columns) < 2:
        return np.zeros((_BOX, _BOX), dtype=np.float32)
    cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    scaled = Image.fromarray((cut * 255).astype(np.uint8)).resize((_BOX, _BOX), Image.Resampling.BOX)
    return np.asarray(scaled, dtype=np.float32) / 255


@functools.cache
def _templates() -> dict[str, np.ndarray]:
    """Each shape, drawn large and boxed."""
    import numpy as np

    drawn = {s: shapes.draw_array(shapes.scene_with(s, "white", "black")) for s in shapes.SHAPES}
    masks = {shape: _cleaned(np.linalg.norm(picture, axis=-1) > 220) for shape, picture in drawn.items()}
    return {shape: _boxed(mask) for shape, mask in masks.items()}


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two soft masks."""
    import numpy as np

    return float(np.minimum(a, b).sum() / max(np.maximum(a, b).sum(), 1e-6))
