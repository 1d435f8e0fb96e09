"""Files that are there whole or not at all, whoever reads meanwhile and wherever a kill cuts the writer off."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to. What is there takes its place in one move at the end, unless something raised.

    For one writer at a time. What a killed one left is hidden, and overwritten by the next.
    """
    partial = path.with_name(f".{path.name}.partial")
    yield partial
    os.replace(partial, path)


def write_whole(path: Path, text: str) -> None:
    """Text as UTF-8."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def share(path: Path) -> Path:
    """Gives a file the permissions that any new one has: some writers, safetensors' too, keep theirs to the owner."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)
    return path
