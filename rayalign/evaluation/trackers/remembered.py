"""The id that a tracking server gave a run, kept in its folder: a resumed run goes on under it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE = "trackers.json"


def remembered(folder: Path, tracker: str) -> str | None:
    """The run's id at `tracker`, null before its first start."""
    return _read(folder).get(tracker)


def remember(folder: Path, tracker: str, run_id: str) -> None:
    (folder / FILE).write_text(json.dumps(_read(folder) | {tracker: run_id}, indent=1))


def flat(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Settings by dotted name, as the command line has them."""
    found: dict[str, Any] = {}
    for name, value in tree.items():
        found |= flat(value, f"{path}{name}.") if isinstance(value, Mapping) else {f"{path}{name}": value}
    return found


def _read(folder: Path) -> dict[str, str]:
    file = folder / FILE
    return json.loads(file.read_text()) if file.exists() else {}
