"""Weights & Biases: its own variables (WANDB_PROJECT, WANDB_MODE, WANDB_API_KEY) say where to."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rayalign.evaluation.trackers.remembered import remember, remembered

PROJECT = "rayalign"  # unless WANDB_PROJECT says another


class WeightsAndBiases:
    """One W&B run for one run of ours, resumed or not."""

    def __init__(self, folder: Path, config: Mapping[str, Any], start: int) -> None:
        import wandb

        known = remembered(folder, "wandb") or uuid.uuid4().hex[:8]
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=str(config.get("name", folder.name)),
            id=known,
            resume="allow",
            dir=str(folder),
            config=dict(config),
            settings=wandb.Settings(silent=True, console="off"),  # its lines would run through the job's own
        )
        remember(folder, "wandb", known)
        # Its own steps only ever go up; an iteration that is done again after a resume would be dropped.
        self._run.define_metric("*", step_metric="iteration")

    def scalars(self, values: Mapping[str, float], iteration: int) -> None:
        self._run.log({**values, "iteration": iteration})

    def image(self, tag: str, image_HWC: np.ndarray, iteration: int) -> None:
        import wandb

        self._run.log({tag: wandb.Image(image_HWC), "iteration": iteration})

    def close(self) -> None:
        self._run.finish()
