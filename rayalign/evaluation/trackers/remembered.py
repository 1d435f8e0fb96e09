"""The id that a tracking server gave a run, kept in its folder: a resumed run goes on under it."""

from __future__ import annotations

import json
from pathlib import Path

FILE = "trackers.json"


def remembered(folder: Path, tracker: str) -> str | None:
    """The run's id at `tracker`, null before its first start."""
    return _read(folder).get(tracker)


def remember(folder: Path, tracker: str, run_id: str) -> None:
    (folder / FILE).write_text(json.dumps(_read(folder) | {tracker: run_id}, indent=1))


def _read(folder: Path) -> dict[str, str]:
    file = folder / FILE
    return json.loads(file.read_text()) if file.exists() else {}
