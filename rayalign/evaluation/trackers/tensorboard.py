"""TensorBoard's event files, in the run's own folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


class TensorBoard:
    """`tensorboard --logdir runs` shows every run of the folder."""

    def __init__(self, folder: Path, config: Mapping[str, Any], start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # torch takes seconds to import

        # TensorBoard forgets what an interrupted attempt wrote for `start` and later.
        self._writer = SummaryWriter(str(folder), purge_step=start)

    def scalars(self, values: Mapping[str, float], iteration: int) -> None:
        for tag, value in values.items():
            self._writer.add_scalar(tag, value, iteration)
        self._writer.flush()

    def image(self, tag: str, image_HWC: np.ndarray, iteration: int) -> None:
        self._writer.add_image(tag, image_HWC, iteration, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
