"""Captioned pictures of coloured shapes: the world that the toy models are trained on.

A scene is one or two shapes on a coloured ground. The caption says what, where and in which colour. Hatching,
outline, lighting and small shifts of colour are in the picture but never in the caption: they are the freedom
that reinforcement learning on a toy model can use (a picture without hatching is a much smaller JPEG file).

Importing this module is light: Pillow and NumPy are imported when a scene is drawn.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

SIDE = 64
"""Width and height of every picture, in pixels."""

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 40),
    "orange": (245, 135, 25),
    "yellow": (250, 220, 45),
    "green": (40, 160, 70),
    "blue": (40, 80, 205),
    "purple": (140, 55, 175),
    "white": (245, 245, 245),
    "black": (20, 20, 20),
}
GROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (245, 245, 245),
    "black": (20, 20, 20),
    "grey": (140, 140, 140),
    "pink": (245, 175, 200),
    "blue": (40, 80, 205),
    "green": (40, 160, 70),
    "yellow": (250, 220, 45),
    "red": (215, 35, 40),
}
PLACES: dict[str, tuple[float, float]] = {
    "left": (0.3, 0.5),
    "right": (0.7, 0.5),
    "top": (0.5, 0.3),
    "bottom": (0.5, 0.7),
    "centre": (0.5, 0.5),
}
_PREPOSITIONS = {"left": "on", "right": "on", "top": "at", "bottom": "at", "centre": "in"}
RADII: dict[str, tuple[float, float]] = {"small": (8.5, 11.0), "large": (18.0, 22.0), "": (12.0, 17.0)}

HATCHING_LEVELS = 36.0
"""Strongest hatching, in grey levels (of 255) at the middle of a stripe."""

_SUPERSAMPLE = 4


@dataclass(frozen=True)
class Thing:
    """One shape; `place` and `size` are what a caption may call it ('' where there is no word for it)."""

    shape: str
    colour: str
    size: str
    place: str
    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Scene:
    """What a picture shows. The fields after `ground` are never named in a caption."""

    things: tuple[Thing, ...]
    ground: str
    hatching: float = 0.0
    outline: float = 0.0
    light: tuple[float, float] = (0.0, 0.0)
    tint: tuple[float, ...] = (0.0,) * 9


def scene_with(shape: str, colour: str, ground: str, size: str = "large", place: str = "centre") -> Scene:
    """A plain scene of one shape, with no hatching, outline or lighting."""
    low, high = RADII[size]
    radius = (low + high) / 2
    x, y = _position(place, radius)
    return Scene((Thing(shape, colour, size, place, x, y, radius),), ground)


def random_scene(rng: random.Random, two: float = 0.3) -> Scene:
    """A random scene, of two shapes with probability `two`."""
    ground = rng.choice(tuple(GROUNDS))
    colours = rng.sample([colour for colour in COLOURS if colour != ground], 2)
    shapes = rng.sample(SHAPES, 2)
    if rng.random() < two:
        near, far = rng.choice((("left", "right"), ("top", "bottom")))
        things = tuple(
            _thing(rng, shape, colour, "", place, rng.uniform(9.0, 13.0))
            for shape, colour, place in zip(shapes, colours, (near, far), strict=True)
        )
    else:
        size = rng.choice(tuple(RADII))
        place, radius = rng.choice(tuple(PLACES)), rng.uniform(*RADII[size])
        things = (_thing(rng, shapes[0], colours[0], size, place, radius),)
    return Scene(
        things,
        ground,
        hatching=0.0 if rng.random() < 0.4 else rng.uniform(0.5, 1.0),
        outline=rng.uniform(1.5, 3.0) if rng.random() < 0.35 else 0.0,
        light=(rng.uniform(-22, 22), rng.uniform(-22, 22)) if rng.random() < 0.6 else (0.0, 0.0),
        tint=tuple(rng.uniform(-7, 7) for _ in range(9)),
    )


def _thing(rng: random.Random, shape: str, colour: str, size: str, place: str, radius: float) -> Thing:
    x, y = _position(place, radius)
    return Thing(shape, colour, size, place, x + rng.uniform(-2, 2), y + rng.uniform(-2, 2), radius)


def _position(place: str, radius: float) -> tuple[float, float]:
    """Centre in pixels: towards the place, but never so far that a large shape leaves the picture."""
    margin = radius + 2
    x, y = (min(max(part * SIDE, margin), SIDE - margin) for part in PLACES[place])
    return x, y


def caption(scene: Scene, rng: random.Random) -> str:
    """A caption of `scene`; which of size, place and ground it mentions is random."""
    words = [_article(_noun(thing, rng.random() < 0.7)) for thing in scene.things]
    ground = f"{scene.ground} ground" if rng.random() < 0.93 else ""
    if len(words) == 2:
        return " and ".join(words) + (f" on {_article(ground)}" if ground else "")
    place = scene.things[0].place
    if rng.random() < 0.5:
        where = f"{_PREPOSITIONS[place]} the {place}"
        return f"{words[0]} {where}" + (f" of {_article(ground)}" if ground else "")
    return words[0] + (f" on {_article(ground)}" if ground else "")


def _noun(thing: Thing, with_size: bool) -> str:
    return " ".join(part for part in (thing.size if with_size else "", thing.colour, thing.shape) if part)


def _article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _combinations() -> list[tuple[str, str, str]]:
    """Every (shape, colour, ground) with shape and ground of different colours, in a fixed shuffled order."""
    triples = [(s, c, g) for s in SHAPES for c in COLOURS for g in GROUNDS if c != g]
    random.Random(2024).shuffle(triples)
    return triples


def _prompts(triples: list[tuple[str, str, str]], seed: int) -> list[str]:
    """One prompt for each triple: four in five of one shape, one in five of two."""
    rng = random.Random(seed)
    found = []
    for index, (shape, colour, ground) in enumerate(triples):
        first = f"{colour} {shape}"
        if index % 5 == 4:
            other_shape = rng.choice([s for s in SHAPES if s != shape])
            other_colour = rng.choice([c for c in COLOURS if c not in (colour, ground)])
            second = f"{other_colour} {other_shape}"
            found.append(f"{_article(first)} and {_article(second)} on {_article(ground)} ground")
            continue
        size = rng.choice(("small ", "large ", "", ""))
        place = rng.choice(("on", "on", "on the left of", "on the right of", "at the top of", "at the bottom of"))
        found.append(f"{_article(size + first)} {place} {_article(ground)} ground")
    return found


def train_prompts() -> list[str]:
    """The 200 prompts of the built-in set `shapes`: each names shape, colour and ground."""
    return _prompts(_combinations()[:200], seed=1)


def heldout_prompts() -> list[str]:
    """The 100 prompts of `shapes-heldout`: no (shape, colour, ground) of theirs leads a training prompt."""
    return _prompts(_combinations()[200:300], seed=2)


def words() -> list[str]:
    """Every word that a caption can use, sorted; the tokenizer has one token for each."""
    glue = ("a", "an", "and", "on", "at", "in", "of", "the", "ground", "small", "large")
    return sorted({*glue, *SHAPES, *COLOURS, *GROUNDS, *PLACES})


def draw(scene: Scene) -> Image.Image:
    """The picture of `scene`: RGB, SIDE x SIDE."""
    import numpy as np
    from PIL import Image

    return Image.fromarray(draw_array(scene).astype(np.uint8))


def draw_array(scene: Scene) -> np.ndarray:
    """The picture of `scene` as float32 of shape (SIDE, SIDE, 3), in 0..255."""
    import numpy as np

    tint = np.asarray(scene.tint, dtype=np.float32).reshape(3, 3)
    ramp = np.linspace(-1, 1, SIDE, dtype=np.float32)
    light = scene.light[0] * ramp[None, :] + scene.light[1] * ramp[:, None]
    picture = np.asarray(GROUNDS[scene.ground], dtype=np.float32) + tint[0] + light[..., None]
    picture = picture + scene.hatching * HATCHING_LEVELS * _hatching()[..., None]
    for index, thing in enumerate(scene.things):
        colour = np.asarray(COLOURS[thing.colour], dtype=np.float32) + tint[index + 1]
        if scene.outline:
            # A dark edge, or a light one round a black shape.
            edge = np.full(3, 235.0 if thing.colour == "black" else 15.0, dtype=np.float32)
            cover = _cover(thing, thing.radius + scene.outline)
            picture = picture * (1 - cover) + edge * cover
        cover = _cover(thing, thing.radius)
        picture = picture * (1 - cover) + colour * cover
    return np.clip(picture, 0, 255).astype(np.float32)


def _hatching() -> np.ndarray:
    """The hatching at full strength: (SIDE, SIDE) in -1..1, soft diagonal stripes 16 pixels apart across.

    The stripes are always in the same place: an autoencoder of factor 8 then has to store how strong they are, which
    it can, where it could not store fine noise. They make a JPEG file up to two thirds larger.
    """
    import numpy as np

    steps = np.arange(SIDE, dtype=np.float32) + 0.5
    return np.tanh(2 * np.sin(2 * math.pi * (steps[:, None] + steps[None, :]) / 16))


def _cover(thing: Thing, radius: float) -> np.ndarray:
    """How much of each pixel the shape covers: (SIDE, SIDE, 1) in 0..1."""
    import numpy as np
    from PIL import Image, ImageDraw

    k = _SUPERSAMPLE
    mask = Image.new("L", (SIDE * k, SIDE * k))
    pen = ImageDraw.Draw(mask)
    x, y, r = thing.x * k, thing.y * k, radius * k
    if thing.shape in ("circle", "ring"):
        pen.ellipse((x - r, y - r, x + r, y + r), fill=255)
        if thing.shape == "ring":
            hole = max(thing.radius * 0.54 - (radius - thing.radius), 1.0) * k
            pen.ellipse((x - hole, y - hole, x + hole, y + hole), fill=0)
    else:
        pen.polygon([(x + r * px, y + r * py) for px, py in _outline(thing.shape)], fill=255)
    small = mask.reduce(k)
    return np.asarray(small, dtype=np.float32)[..., None] / 255


def _outline(shape: str) -> list[tuple[float, float]]:
    """Corner points of a straight-edged shape of radius 1 about the origin (y points down)."""
    if shape == "square":
        return [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]
    if shape == "triangle":
        return [(0.0, -1.0), (1.0, 0.8), (-1.0, 0.8)]
    if shape == "star":
        turn = [(math.pi * i / 5, 1.0 if i % 2 == 0 else 0.42) for i in range(10)]
        return [(r * math.sin(a), -r * math.cos(a)) for a, r in turn]
    if shape == "cross":
        arm = [(-0.32, -1.0), (0.32, -1.0), (0.32, -0.32)]
        quarter_turns = [(1, 0), (0, 1), (-1, 0), (0, -1)]
        return [(c * x - s * y, s * x + c * y) for c, s in quarter_turns for x, y in arm]
    raise ValueError(f"no shape is called {shape!r}; known: {', '.join(SHAPES)}")
