"""Small encoded images, told apart by their colour."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from PIL import Image


@pytest.fixture
def image() -> Callable[..., bytes]:
    """`image((255, 0, 0))`: bytes of a plain picture."""

    def make(colour: tuple[int, ...] = (200, 30, 30), format: str = "JPEG", size: tuple[int, int] = (24, 16)) -> bytes:
        with io.BytesIO() as file:
            Image.new("RGB", size, colour).save(file, format=format)
            return file.getvalue()

    return make
