"""Image bytes to pixels and back. Shape letters: C H W channels, height, width."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

WHITE = (255, 255, 255, 255)


def decode(data: bytes, resolution: int) -> np.ndarray:
    """Encoded bytes (JPEG, PNG, WebP, ...) -> float32 (3, resolution, resolution) in [0, 1], as `pixels` gives them.

    Raises:
        ValueError: the bytes are no image that decodes to its end.
    """
    return np.ascontiguousarray(pixels(data, resolution).transpose(2, 0, 1).astype(np.float32)) / 255


def pixels(data: bytes, resolution: int | None = None) -> np.ndarray:
    """Encoded bytes -> uint8 (H, W, 3), turned upright by its EXIF orientation, transparent parts on white.

    With a `resolution` the middle square is resized by Lanczos, so that the shorter side becomes that.

    Raises:
        ValueError: the bytes are no image that decodes to its end.
    """
    image = _opened(data)
    if resolution is not None:
        # Cropped, then resized: a strip of 1 x 9000 pixels must not become one of 1024 x 9,216,000.
        image = ImageOps.fit(image, (resolution, resolution), Image.Resampling.LANCZOS)
    return np.asarray(image)


def decodes(data: bytes | None) -> bool:
    """Whether `decode` will take these bytes. For a JPEG it costs little: read to its end, but hardly drawn."""
    try:
        _opened(data or b"", draft=True)
    except ValueError:
        return False
    return True


def encode(image_HWC: np.ndarray) -> bytes:
    """uint8 (H, W, 3) -> PNG bytes, lossless: what a JPEG does to a winner, a model would learn as preferred."""
    with io.BytesIO() as file:
        Image.fromarray(image_HWC).save(file, format="PNG")
        return file.getvalue()


def _opened(data: bytes, draft: bool = False) -> Image.Image:
    """RGB, upright, fully read. `draft` lets a JPEG skip most pixels."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if draft:
                image.draft("RGB", (1, 1))
            upright = ImageOps.exif_transpose(image)
            if upright.has_transparency_data:
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, WHITE), upright.convert("RGBA"))
            return upright.convert("RGB")
    except UnidentifiedImageError as error:  # whose own message holds the address of a buffer
        raise ValueError("no image: empty, or of no format that is known") from error
    except Exception as error:  # damaged bytes raise whatever the format's parser trips over, or a size that is a bomb
        raise ValueError(f"no image: {error}") from error
