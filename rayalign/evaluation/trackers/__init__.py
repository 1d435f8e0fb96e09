"""Where a run's curves and pictures go beside its own folder: one tracker a file, one line each in `TRACKERS`.

Every tracker gets the same tags (`history.scalars`) at step = iteration, and the same picture grids.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rayalign.errors import ConfigError
from rayalign.evaluation.history import History, scalars
from rayalign.records import IterationRecord

logger = logging.getLogger(__name__)

# name -> (its module's class, the package it needs, how to get it)
TRACKERS = {
    "tensorboard": ("rayalign.evaluation.trackers.tensorboard:TensorBoard", "tensorboard", "tensorboard"),
    "wandb": ("rayalign.evaluation.trackers.wandb:WeightsAndBiases", "wandb", "'rayalign[wandb]'"),
    "mlflow": ("rayalign.evaluation.trackers.mlflow:MLflow", "mlflow", "'rayalign[mlflow]'"),
}


class Tracker(Protocol):
    """`Tracker(folder, config, start)`: a run's folder, its settings as a tree, the iteration it (re)starts at."""

    def scalars(self, values: Mapping[str, float], iteration: int) -> None: ...

    def image(self, tag: str, image_HWC: np.ndarray, iteration: int) -> None:
        """uint8 (H, W, 3)."""

    def close(self) -> None: ...


def check_trackers(names: Sequence[str]) -> None:
    """Raises ConfigError for a tracker whose package is not installed."""
    for name in names:
        _, package, install = TRACKERS[name]
        if importlib.util.find_spec(package) is None:
            raise ConfigError("trackers", name, f"{package} is not installed; pip install {install}, or leave it out")


class Trackers:
    """The run's history and every tracker it asked for, as one. `known` as in `History`.

    A tracker that fails while the run goes is warned of once and left out from then on: the history has it all.

    Raises:
        ConfigError: one cannot be started.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        names: Sequence[str],
        start: int = 0,
        known: Sequence[IterationRecord] = (),
    ) -> None:
        self._history = History(folder, start, known)
        self._trackers: dict[str, Tracker] = {name: _started(name, folder, config, start) for name in names}
        for record in self._history.restored:
            self._plot(record)

    def record(self, record: IterationRecord) -> None:
        """On disk in the history when this returns, then a point a scalar in each tracker."""
        self._history.record(record)
        self._plot(record)

    def _plot(self, record: IterationRecord) -> None:
        self._each(lambda tracker: tracker.scalars(scalars(record), record.iteration))

    def image(self, tag: str, picture: Any, iteration: int) -> None:
        """A PIL image or uint8 (H, W, 3), a grid from `grids` for instance."""
        self._each(lambda tracker: tracker.image(tag, np.asarray(picture), iteration))

    def close(self) -> None:
        self._history.close()
        self._each(lambda tracker: tracker.close())

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                call(tracker)
            except Exception as error:  # a server that is away, whatever its client raises then
                del self._trackers[name]
                logger.warning("%s failed (%s: %s): nothing more goes there", name, type(error).__name__, error)

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _started(name: str, folder: Path, config: Mapping[str, Any], start: int) -> Tracker:
    try:
        return _class(name)(folder, config, start)
    except Exception as error:  # a server that is away, a key that is missing
        fix = f"cannot be started ({type(error).__name__}: {error}); see docs/trackers.md, or leave it out"
        raise ConfigError("trackers", name, fix) from error


def _class(name: str) -> Any:
    module, _, found = TRACKERS[name][0].partition(":")
    return getattr(importlib.import_module(module), found)
