"""What every benchmark does with its numbers: a table for people, JSON for programs."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "diffusers", "peft", "accelerate", "pyarrow", "ray")


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Left column as text, the others right-aligned; floats with four significant digits."""
    cells = [list(header), *([_text(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    lines = [
        "  ".join(text.ljust(width) if not column else text.rjust(width) for column, (text, width) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in cells)
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """As `table`, for a page."""
    lines = [header, ["---", *("---:" for _ in header[1:])], *([_text(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "-" if value is None else str(value)


def write_json(path: str | None, result: dict[str, Any]) -> None:
    """`result` with the versions it was measured with; nothing where no path is given."""
    if path is not None:
        Path(path).write_text(json.dumps(result | {"versions": versions()}, indent=1) + "\n")


def versions() -> dict[str, str]:
    """Installed ones only: throughput runs where Ray is not."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
