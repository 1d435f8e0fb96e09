"""What a run leaves behind while it goes: one line an iteration in `history.jsonl`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rayalign.records import IterationRecord
from rayalign.whole_files import write_whole

HISTORY = "history.jsonl"


class History:
    """Writes each `IterationRecord` to `history.jsonl`.

    `start` is the iteration the run begins or resumes at: earlier lines stay, later ones are taken away
    first, so that an iteration done twice is there once. `known` are the records before it that its
    checkpoint holds: the file lacks some where its writer was killed, and all on a new machine.

    Attributes:
        restored: those of `known` that the file lacked.
    """

    def __init__(self, folder: str | Path, start: int = 0, known: Sequence[IterationRecord] = ()) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.restored = _restore(folder / HISTORY, start, known)
        self._file = (folder / HISTORY).open("a", encoding="utf-8")

    def record(self, record: IterationRecord) -> None:
        """One line, on disk when this returns."""
        self._file.write(history_line(record))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def scalars(record: IterationRecord) -> dict[str, float]:
    """Tag -> value. A metric that names its group (`reward/jpeg`) keeps it, the others go under `train/`."""
    tags = {(name if "/" in name else f"train/{name}"): value for name, value in record.metrics.items()}
    tags |= {f"counts/{name}": value for name, value in record.counts.items()}
    tags |= {f"seconds/{name}": value for name, value in record.seconds.items()}
    tags |= {"pipeline/lag_max": record.lag_max, "pipeline/version": record.version}
    return {tag: float(value) for tag, value in tags.items()}


def read_history(path: str | Path) -> list[IterationRecord]:
    """The records of a history file (or of the run folder that holds one), nothing where there is none.

    A last line without its end is what a killed writer leaves: it is no record. Nulls come back as NaN.
    """
    path = Path(path)
    path = path / HISTORY if path.is_dir() else path
    if not path.exists():
        return []
    return parse_history(path.read_text("utf-8"))


def wall_seconds(summary: Mapping[str, Any], history: Sequence[IterationRecord]) -> float | None:
    """By the clock: what a summary says, which may be of an earlier attempt, and the iterations since.

    An attempt that was killed leaves its iterations' time and no summary. None where neither says any.
    """
    told = (summary.get("seconds") or {}).get("wall")
    since = history[summary.get("num_iterations", len(history)) if told is not None else 0 :]
    walls = [record.seconds["wall"] for record in since if "wall" in record.seconds]
    return (told or 0.0) + sum(walls) if told is not None or walls else None


def history_line(record: IterationRecord) -> str:
    """A record as `parse_history` reads it, with the line's end."""
    return json.dumps(_plain(asdict(record)), allow_nan=False) + "\n"


def parse_history(text: str) -> list[IterationRecord]:
    """The records of whole lines; as `read_history`."""
    lines = text.splitlines(keepends=True)
    found = [json.loads(line) for line in lines if line.endswith("\n") and line.strip()]
    for entry in found:
        for group in ("metrics", "seconds"):
            entry[group] = {
                name: math.nan if value is None else value for name, value in entry[group].items()
            }
    return [IterationRecord(**entry) for entry in found]


def _restore(path: Path, start: int, known: Sequence[IterationRecord]) -> list[IterationRecord]:
    """Keeps the lines of iterations below `start` and adds the `known` ones that lack, in one move: a crash leaves the
    old file or the new. Returns what was added.
    """
    kept = {record.iteration: record for record in read_history(path) if record.iteration < start}
    missing = [record for record in known if record.iteration not in kept and record.iteration < start]
    if path.exists() or missing:
        kept |= {record.iteration: record for record in missing}
        write_whole(path, "".join(history_line(kept[iteration]) for iteration in sorted(kept)))
    return missing


def _plain(value: Any) -> Any:
    """As JSON can hold it: numpy numbers as Python's, what is not finite as null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
