import json
import math
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from rayalign.evaluation.history import History, read_history, scalars, wall_seconds
from rayalign.records import IterationRecord


def record(iteration, **metrics):
    return IterationRecord(
        iteration, iteration + 1, metrics or {"loss": 0.5}, {"pairs_kept": 3}, {"rollout": 1.5}, 0
    )


def test_records_come_back(tmp_path):
    with closing(History(tmp_path)) as history:
        history.record(record(0))
        assert read_history(tmp_path) == [record(0)]  # on disk at once, not at the end
        history.record(record(1))
    assert read_history(tmp_path / "history.jsonl") == [record(0), record(1)]


def test_resuming_drops_what_will_be_done_again(tmp_path):
    with closing(History(tmp_path)) as history:
        for i in range(4):
            history.record(record(i))
    with closing(History(tmp_path, start=2)) as history:
        history.record(record(2, loss=0.25))
    assert read_history(tmp_path) == [record(0), record(1), record(2, loss=0.25)]


def test_what_the_file_lacks_comes_from_the_checkpoint(tmp_path):
    """A writer was killed before it wrote iterations 1 and 3, or all was lost with the disk."""
    with closing(History(tmp_path / "holes")) as history:
        for i in (0, 2):
            history.record(record(i))
    known = [record(i, loss=float(i)) for i in range(4)]
    for folder, lacked in (("holes", [1, 3]), ("new-machine", [0, 1, 2, 3])):
        with closing(History(tmp_path / folder, start=4, known=known)) as history:
            assert history.restored == [known[i] for i in lacked]
            history.record(record(4))
    assert read_history(tmp_path / "holes") == [record(0), known[1], record(2), known[3], record(4)]
    assert read_history(tmp_path / "new-machine") == [*known, record(4)]
    # What the checkpoint holds beyond the iteration it is asked for would be done again.
    History(tmp_path / "back", start=1, known=known).close()
    assert read_history(tmp_path / "back") == [known[0]]


def test_half_a_line_is_no_record(tmp_path):
    with closing(History(tmp_path)) as history:
        history.record(record(0))
    with (tmp_path / "history.jsonl").open("a") as file:
        file.write('{"iteration": 1, "vers')
    assert read_history(tmp_path) == [record(0)]
    with closing(History(tmp_path, start=1)) as history:  # and does not swallow the next one
        history.record(record(1))
    assert [entry.iteration for entry in read_history(tmp_path)] == [0, 1]


def test_lines_are_strict_json_with_plain_numbers(tmp_path):
    with closing(History(tmp_path)) as history:
        history.record(
            replace(record(0, loss=math.nan, reward=np.float32(0.5)), extra={"ages": np.array([0, 1])})
        )
    line = json.loads((tmp_path / "history.jsonl").read_text(), parse_constant=pytest.fail)
    assert line["metrics"] == {"loss": None, "reward": 0.5}
    assert line["extra"] == {"ages": [0, 1]}
    assert math.isnan(read_history(tmp_path)[0].metrics["loss"])


def test_wall_time_is_the_summarys_and_that_of_iterations_since():
    timed = [replace(record(i), seconds={"rollout": 1.5, "wall": 10.0 + i}) for i in range(4)]
    assert wall_seconds({}, []) is None
    assert wall_seconds({}, [record(0)]) is None  # of a version that did not write it
    assert wall_seconds({}, [record(0), *timed[1:]]) == 36.0  # attempts that were killed left no summary
    ended = {"num_iterations": 2, "seconds": {"wall": 100.0, "rollout": 3.0}}
    assert wall_seconds(ended, timed[:2]) == 100.0  # start and end included, and counted once
    assert wall_seconds(ended, timed) == 125.0
    assert wall_seconds({"seconds": {"wall": 100.0}}, timed) == 100.0


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
