"""Each tracker's own reader gives back the logged values and pictures, under the same names."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rayalign.errors import ConfigError
from rayalign.evaluation import trackers
from rayalign.evaluation.history import read_history
from rayalign.evaluation.trackers import Trackers, check_trackers
from rayalign.records import IterationRecord

CONFIG = {"name": "first", "model": {"path": "toy-sdxl"}, "train": {"lr": 3e-2}}
TAG = "images/before_after"
GRID = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def record(iteration: int, loss: float) -> IterationRecord:
    metrics = {"loss": loss, "reward/jpeg": -loss, "norm": math.nan}
    return IterationRecord(iteration, iteration + 1, metrics, {"pairs_kept": 3}, {"rollout": 1.5}, 0)


def logged_run(folder: Path, name: str) -> None:
    """Iterations 0 to 2 and a picture; then a resume that does iteration 2 again."""
    with Trackers(folder, CONFIG, [name]) as tracker:
        for i in range(3):
            tracker.record(record(i, 1.0 + i))
        tracker.image(TAG, Image.fromarray(GRID), 1)
    with Trackers(folder, CONFIG, [name], start=2) as tracker:
        tracker.record(record(2, 9.0))
    assert [one.metrics["loss"] for one in read_history(folder)] == [1.0, 2.0, 9.0]


def test_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logged_run(tmp_path, "tensorboard")
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    # The first value of iteration 2 is forgotten.
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(0, 1.0), (1, 2.0), (2, 9.0)]
    assert [event.value for event in events.Scalars("reward/jpeg")] == [-1.0, -2.0, -9.0]
    (picture,) = events.Images(TAG)
    assert (picture.width, picture.height, picture.step) == (6, 4, 1)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(picture.encoded_image_string))), GRID)


def test_mlflow_in_its_local_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.chdir(tmp_path)
    logged_run(tmp_path / "first", "mlflow")
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("rayalign").experiment_id])
    assert run.info.run_name == "first"
    assert run.info.status == "FINISHED"
    assert run.data.params["train.lr"] == "0.03"

    def values(tag: str) -> list[tuple[int, float]]:
        return [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, tag)]

    assert values("train/loss") == [(0, 1.0), (1, 2.0), (2, 3.0), (2, 9.0)]  # a resumed run goes on in the same
    assert values("reward/jpeg")[0] == (0, -1.0)
    assert "train/norm" not in run.data.metrics  # not finite
    files = [file.path for file in client.list_artifacts(run.info.run_id, "images")]
    (picture,) = [file for file in files if file.endswith(".png")]
    assert not (tmp_path / "mlruns").exists()  # nothing strewn about where the job was started
    found = np.asarray(Image.open(client.download_artifacts(run.info.run_id, picture, str(tmp_path))))
    np.testing.assert_array_equal(found, GRID)


def test_weights_and_biases_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    logged: list[tuple[str, dict[str, Any]]] = []
    real = wandb.Run.log
    # An offline run's own file can be read by its server alone: the values are caught on their way in.
    monkeypatch.setattr(wandb.Run, "log", lambda run, row: (logged.append((run.id, row)), real(run, row))[1])
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = tmp_path / "first"
    logged_run(folder, "wandb")
    losses = [(row["iteration"], row["train/loss"]) for _, row in logged if "train/loss" in row]
    assert losses == [(0, 1.0), (1, 2.0), (2, 3.0), (2, 9.0)]
    assert len({run for run, _ in logged}) == 1  # a resumed run goes on in the same
    (picture,) = (folder / "wandb").glob("offline-run-*/files/media/images/images/*.png")
    np.testing.assert_array_equal(np.asarray(Image.open(picture)), GRID)


def test_a_tracker_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_trackers(["tensorboard", "wandb", "mlflow"])
    monkeypatch.setitem(trackers.TRACKERS, "wandb", ("x:Y", "no_such_package", "'rayalign[wandb]'"))
    with pytest.raises(ConfigError, match=r"trackers.*wandb.*pip install 'rayalign\[wandb\]'"):
        check_trackers(["wandb"])


class Away:
    """A server that goes away after the first iteration."""

    def __init__(self, folder: Path, config: Any, start: int) -> None:
        self.seen: list[int] = []

    def scalars(self, values: Any, iteration: int) -> None:
        self.seen.append(iteration)
        if iteration:
            raise ConnectionError("no route")

    def close(self) -> None:
        raise AssertionError("it was left out")


def test_a_tracker_that_fails_costs_its_curves_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(trackers, "_class", lambda name: Away)
    with Trackers(tmp_path, CONFIG, ["mlflow"]) as tracker:
        for i in range(3):
            tracker.record(record(i, 1.0))
    assert [one.iteration for one in read_history(tmp_path)] == [0, 1, 2]
    assert [one.message for one in caplog.records] == [
        "mlflow failed (ConnectionError: no route): nothing more goes there"
    ]


def test_a_tracker_that_cannot_start_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("no key")

    monkeypatch.setattr(trackers, "_class", lambda name: refuse)
    with pytest.raises(ConfigError, match=r"trackers = 'wandb': cannot be started \(RuntimeError: no key\)"):
        Trackers(tmp_path, CONFIG, ["wandb"])
