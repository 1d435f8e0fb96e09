"""MLflow: a server named by MLFLOW_TRACKING_URI, or else a local store `mlflow.db` beside the run's folder."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from rayalign.evaluation.trackers.remembered import remember, remembered
from rayalign.trees import flat

EXPERIMENT = "rayalign"  # unless MLFLOW_EXPERIMENT_NAME says another
PARAM_CHARS = 500  # of a value; servers refuse longer ones


class MLflow:
    """One MLflow run for one run of ours, resumed or not. `mlflow ui --backend-store-uri sqlite:///runs/mlflow.db`."""

    def __init__(self, folder: Path, config: Mapping[str, Any], start: int) -> None:
        from mlflow import MlflowClient

        local = folder.resolve().parent
        address = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{local / 'mlflow.db'}"
        self._client = MlflowClient(tracking_uri=address)
        known = remembered(folder, "mlflow")
        self._run = known or self._create(folder, config, local, address)

    def _create(self, folder: Path, config: Mapping[str, Any], local: Path, address: str) -> str:
        from mlflow.entities import Param

        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        found = self._client.get_experiment_by_name(name)
        # A local store would else put pictures under the folder that the job was started in.
        artifacts = (local / "mlartifacts").as_uri() if address.startswith("sqlite:") else None
        experiment = found.experiment_id if found else self._client.create_experiment(name, artifacts)
        run = self._client.create_run(experiment, run_name=str(config.get("name", folder.name))).info.run_id
        params = [Param(name, str(value)[:PARAM_CHARS]) for name, value in flat(config).items()]
        for first in range(0, len(params), 100):  # as many as a server takes at once
            self._client.log_batch(run, params=params[first : first + 100])
        remember(folder, "mlflow", run)
        return run

    def scalars(self, values: Mapping[str, float], iteration: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        finite = {tag: value for tag, value in values.items() if math.isfinite(value)}
        self._client.log_batch(self._run, metrics=[Metric(tag, value, now, iteration) for tag, value in finite.items()])

    def image(self, tag: str, image_HWC: np.ndarray, iteration: int) -> None:
        from PIL import Image

        self._client.log_image(self._run, Image.fromarray(image_HWC), key=tag, step=iteration)

    def close(self) -> None:
        self._client.set_terminated(self._run)
