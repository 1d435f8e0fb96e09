from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from rayalign.data.images import decode, decodes, encode

ORIENTATION = 0x0112  # EXIF tag


def saved(picture: Image.Image, **options) -> bytes:
    with io.BytesIO() as file:
        picture.save(file, **options)
        return file.getvalue()


def ramp(height: int, width: int) -> np.ndarray:
    """Red grows to the right, green downward."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns * 255 / (width - 1), rows * 255 / (height - 1), 0 * rows], axis=-1).astype(np.uint8)


def test_what_is_encoded_comes_back_bit_for_bit() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    decoded = decode(encode(pixels), 16)
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, (pixels.transpose(2, 0, 1) / 255).astype(np.float32))


def test_the_middle_square_is_kept() -> None:
    # 20 x 60: the middle third. Red there runs from 1/3 to 2/3, whatever the size it is resized to.
    for resolution in (20, 10, 40):
        picture = decode(encode(ramp(20, 60)), resolution)
        assert picture.shape == (3, resolution, resolution)
        assert picture[0, :, 0].mean() == pytest.approx(1 / 3, abs=0.03)
        assert picture[0, :, -1].mean() == pytest.approx(2 / 3, abs=0.03)
        assert picture[1, 0].mean() < 0.06
        assert picture[1, -1].mean() > 0.94


def test_a_thin_strip_costs_no_more_than_its_square() -> None:
    strip = saved(Image.new("RGB", (1, 60_000), (255, 0, 0)), format="PNG")
    assert decode(strip, 1024).shape == (3, 1024, 1024)  # resized before the crop: 63 billion pixels


def test_a_photograph_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # the top of the scene is at the right of the file
    on_its_side = Image.fromarray(ramp(24, 24)).transpose(Image.Transpose.ROTATE_90)
    upright = decode(saved(on_its_side, format="PNG", exif=exif), 24)
    np.testing.assert_array_equal(upright, (ramp(24, 24).transpose(2, 0, 1) / 255).astype(np.float32))


def test_every_mode_becomes_rgb() -> None:
    grey = decode(saved(Image.new("L", (8, 8), 51), format="PNG"), 8)
    np.testing.assert_allclose(grey, 0.2, atol=1e-6)
    palette = Image.new("RGB", (8, 8), (255, 0, 0)).convert("P")
    np.testing.assert_allclose(decode(saved(palette, format="GIF"), 8)[:, 0, 0], [1, 0, 0], atol=1e-6)
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # no cyan, all magenta and yellow: red
    np.testing.assert_allclose(decode(saved(cmyk, format="JPEG"), 8)[:, 0, 0], [1, 0, 0], atol=0.02)


def test_what_is_transparent_lies_on_white() -> None:
    # What stands in transparent pixels is by chance; half transparent black on white is grey.
    clear, half = (Image.new("RGBA", (8, 8), (0, 0, 0, alpha)) for alpha in (0, 128))
    np.testing.assert_array_equal(decode(saved(clear, format="PNG"), 8), 1)
    np.testing.assert_allclose(decode(saved(half, format="PNG"), 8), 127 / 255, atol=0.01)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_broken_bytes_are_a_value_error_and_the_cheap_check_agrees(format: str) -> None:
    generator = np.random.default_rng(1)
    whole = saved(Image.fromarray(ramp(64, 64)), format=format)
    assert decodes(whole)
    found = set()
    for trial in range(120):
        data = bytearray(whole)
        if trial % 2:
            del data[generator.integers(len(data)) :]
        else:
            for _ in range(4):
                data[generator.integers(min(len(data), 400))] = generator.integers(256)
        good = decodes(bytes(data))
        found.add(good)
        if good:
            assert decode(bytes(data), 16).shape == (3, 16, 16)
        else:
            with pytest.raises(ValueError, match="no image"):
                decode(bytes(data), 16)
    assert False in found


def test_nothing_is_no_image() -> None:
    assert not decodes(None)
    assert not decodes(b"")
    assert not decodes(b"<html>404</html>")
