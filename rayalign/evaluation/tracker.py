"""What a run leaves behind while it goes: one line per iteration in `history.jsonl`, and TensorBoard."""

from __future__ import annotations

import json
import logging
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rayalign.records import IterationRecord

HISTORY = "history.jsonl"
log = logging.getLogger(__name__)


class Tracker:
    """Writes each `IterationRecord` to `history.jsonl` and TensorBoard, and image grids to TensorBoard.

    `start` is the iteration the run begins or resumes at: earlier lines stay, later ones are taken away
    first, so that an iteration done twice is logged once.
    """

    def __init__(self, folder: str | Path, start: int = 0) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        _drop_from(self.folder / HISTORY, start)
        self._history = (self.folder / HISTORY).open("a", encoding="utf-8")
        self._writer = _summary_writer(self.folder, start)

    def record(self, record: IterationRecord) -> None:
        """One line, on disk when this returns, and one point per scalar at step = iteration."""
        self._history.write(json.dumps(_plain(asdict(record)), allow_nan=False) + "\n")
        self._history.flush()
        if self._writer is None:
            return
        for tag, value in scalars(record).items():
            self._writer.add_scalar(tag, value, record.iteration)
        self._writer.flush()

    def image(self, tag: str, picture: Any, iteration: int) -> None:
        """A PIL image or uint8 (H, W, 3), a grid from `grids` for instance."""
        if self._writer is not None:
            self._writer.add_image(tag, np.asarray(picture), iteration, dataformats="HWC")
            self._writer.flush()

    def close(self) -> None:
        self._history.close()
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


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
    lines = path.read_text("utf-8").splitlines(keepends=True)
    found = [json.loads(line) for line in lines if line.endswith("\n") and line.strip()]
    for entry in found:
        for group in ("metrics", "seconds"):
            entry[group] = {
                name: math.nan if value is None else value for name, value in entry[group].items()
            }
    return [IterationRecord(**entry) for entry in found]


def _drop_from(path: Path, start: int) -> None:
    """Keeps the lines of iterations below `start`, in one move: a crash leaves the old file or the new."""
    if not path.exists():
        return
    kept = [record for record in read_history(path) if record.iteration < start]
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text("".join(json.dumps(_plain(asdict(record))) + "\n" for record in kept), "utf-8")
    os.replace(partial, path)


def _plain(value: Any) -> Any:
    """As JSON can hold it: numpy numbers as Python's, what is not finite as null."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _summary_writer(folder: Path, start: int) -> Any | None:
    """torch's TensorBoard writer or tensorboardX's; imported here, since torch takes seconds to import.

    `purge_step` tells TensorBoard to forget what an interrupted attempt wrote for `start` and later.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        try:
            from tensorboardX import SummaryWriter  # type: ignore[no-redef]
        except ImportError:
            log.warning("no TensorBoard curves: neither tensorboard nor tensorboardX is installed")
            return None
    return SummaryWriter(str(folder), purge_step=start)
