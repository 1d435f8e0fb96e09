import json
import math
from dataclasses import replace

import numpy as np
import pytest

from rayalign.evaluation.tracker import Tracker, read_history, scalars
from rayalign.records import IterationRecord


def record(iteration, **metrics):
    return IterationRecord(
        iteration, iteration + 1, metrics or {"loss": 0.5}, {"pairs_kept": 3}, {"rollout": 1.5}, 0
    )


@pytest.fixture
def without_tensorboard(monkeypatch):
    monkeypatch.setattr("rayalign.evaluation.tracker._summary_writer", lambda *_: None)


def test_records_come_back(tmp_path, without_tensorboard):
    with Tracker(tmp_path) as tracker:
        tracker.record(record(0))
        assert read_history(tmp_path) == [record(0)]  # on disk at once, not at the end
        tracker.record(record(1))
    assert read_history(tmp_path / "history.jsonl") == [record(0), record(1)]


def test_resuming_drops_what_will_be_done_again(tmp_path, without_tensorboard):
    with Tracker(tmp_path) as tracker:
        for i in range(4):
            tracker.record(record(i))
    with Tracker(tmp_path, start=2) as tracker:
        tracker.record(record(2, loss=0.25))
    assert read_history(tmp_path) == [record(0), record(1), record(2, loss=0.25)]


def test_half_a_line_is_no_record(tmp_path, without_tensorboard):
    with Tracker(tmp_path) as tracker:
        tracker.record(record(0))
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"iteration": 1, "vers')
    assert read_history(tmp_path) == [record(0)]
    with Tracker(tmp_path, start=1) as tracker:  # and does not swallow the next one
        tracker.record(record(1))
    assert [entry.iteration for entry in read_history(tmp_path)] == [0, 1]


def test_lines_are_strict_json_with_plain_numbers(tmp_path, without_tensorboard):
    with Tracker(tmp_path) as tracker:
        tracker.record(
            replace(record(0, loss=math.nan, reward=np.float32(0.5)), extra={"ages": np.array([0, 1])})
        )
    line = json.loads((tmp_path / "history.jsonl").read_text(), parse_constant=pytest.fail)
    assert line["metrics"] == {"loss": None, "reward": 0.5}
    assert line["extra"] == {"ages": [0, 1]}
    assert math.isnan(read_history(tmp_path)[0].metrics["loss"])


def test_no_history_yet(tmp_path):
    assert read_history(tmp_path) == []


def test_tags():
    found = scalars(record(4, **{"loss": 0.5, "reward/jpeg": -3.0}))
    assert found == {
        "train/loss": 0.5,
        "reward/jpeg": -3.0,
        "counts/pairs_kept": 3.0,
        "seconds/rollout": 1.5,
        "pipeline/lag_max": 0.0,
        "pipeline/version": 5.0,
    }


def test_tensorboard_reads_what_was_written(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with Tracker(tmp_path) as tracker:
        for i in range(3):
            tracker.record(record(i, loss=1.0 + i))
        tracker.image("before_after", np.zeros((4, 6, 3), np.uint8), 2)
    with Tracker(tmp_path, start=2) as tracker:  # iteration 2 is done again: its first value is forgotten
        tracker.record(record(2, loss=9.0))
    events = accumulator.EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [
        (0, 1.0),
        (1, 2.0),
        (2, 9.0),
    ]
    assert "before_after" in events.Tags()["images"]
