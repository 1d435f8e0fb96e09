"""Pictures side by side, with captions that stay legible when the pictures themselves are tiny."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rayalign.evaluation.image_set import ImageSet, require_same_rows, spread

MIN_SIDE = 128  # px; smaller pictures are enlarged by whole factors, so that every pixel stays a square
GAP = 8  # px between cells
FONT_SIZE = 13  # px
LINE_HEIGHT = 17  # px
MAX_LINES = 3  # of a caption; what is cut ends in an ellipsis
BACKGROUND, INK, MUTED = (255, 255, 255), (28, 30, 33), (110, 116, 124)


def grid(
    images: Sequence[np.ndarray] | np.ndarray, columns: int, captions: Sequence[str] | None = None
) -> Image.Image:
    """N pictures, uint8 (H, W, 3) of one size, row by row; captions under them where given.

    Raises ValueError without pictures, with less than one column, or unless captions match the pictures.
    """
    if not len(images) or columns < 1:
        raise ValueError(f"a grid needs a picture and a column, got {len(images)} and {columns}")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"{len(captions)} captions for {len(images)} pictures")
    pictures = [enlarge(image) for image in images]
    width, height = pictures[0].size
    font = ImageFont.load_default(FONT_SIZE)
    texts = [wrap(caption, width, font) for caption in captions or [""] * len(images)]
    # All rows get the height of the longest caption, so that pictures line up.
    text_height = LINE_HEIGHT * max(map(len, texts)) + (4 if any(texts) else 0)

    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    size = (columns * (width + GAP) + GAP, rows * (height + text_height + GAP) + GAP)
    canvas = Image.new("RGB", size, BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    for i, (picture, lines) in enumerate(zip(pictures, texts, strict=True)):
        x, y = GAP + (i % columns) * (width + GAP), GAP + (i // columns) * (height + text_height + GAP)
        canvas.paste(picture, (x, y))
        for j, line in enumerate(lines):
            draw.text((x, y + height + 2 + j * LINE_HEIGHT), line, fill=INK, font=font)
    return canvas


def before_after_grid(before: ImageSet, after: ImageSet, n: int, columns: int = 2) -> Image.Image:
    """n pairs, before left and after right, the prompt under them; first seeds of all prompts first.

    Raises ValueError unless both show the same prompts with the same seeds.
    """
    require_same_rows(before, after)
    rows = spread(before.prompts, n)
    return grid(
        [_pair(before.images[i], after.images[i]) for i in rows], columns, [before.prompts[i] for i in rows]
    )


def enlarge(image: np.ndarray) -> Image.Image:
    """By the smallest whole factor that brings the shorter side to MIN_SIDE, nearest neighbour."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    factor = max(1, -(-MIN_SIDE // min(picture.size)))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def wrap(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """`text` in lines of at most `width` px, at most MAX_LINES; words longer than a line are broken."""
    if not isinstance(font, ImageFont.FreeTypeFont):
        text = text.encode(
            "ascii", "replace"
        ).decode()  # Pillow without FreeType has a Latin bitmap font only
    lines, line = [], ""
    for word in text.split():
        joined = f"{line} {word}".strip()
        if font.getlength(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        line = word
        while font.getlength(line) > width and len(line) > 1:
            cut = next(k for k in range(len(line) - 1, 0, -1) if k == 1 or font.getlength(line[:k]) <= width)
            lines.append(line[:cut])
            line = line[cut:]
    lines += [line] if line else []
    if len(lines) > MAX_LINES:
        last = lines[MAX_LINES - 1]
        while last and font.getlength(last + "…") > width:
            last = last[:-1]
        lines = [*lines[: MAX_LINES - 1], last + "…"]
    return lines


def _pair(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Two pictures with a hairline between and their names above: uint8 (H', W', 3)."""
    left, right = enlarge(before), enlarge(after)
    canvas = Image.new("RGB", (left.width + right.width + 2, left.height + LINE_HEIGHT), BACKGROUND)
    canvas.paste(left, (0, LINE_HEIGHT))
    canvas.paste(right, (left.width + 2, LINE_HEIGHT))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(FONT_SIZE - 1)
    draw.text((0, 0), "before", fill=MUTED, font=font)
    draw.text((left.width + 2, 0), "after", fill=MUTED, font=font)
    return np.asarray(canvas)
