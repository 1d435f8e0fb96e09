from __future__ import annotations

from typing import Any

import numpy as np

from rayalign.evaluation.callouts import SaidOnce, of_iteration, of_pictures, warnings
from rayalign.evaluation.image_set import ImageSet
from rayalign.records import IterationRecord

STEADY: dict[str, Any] = {"constant": {"flat": [0.5, 64.0, 40]}}


def record(iteration: int, extra: dict[str, Any] | None = None, **pairs: int) -> IterationRecord:
    counts = {f"pairs_{status}": count for status, count in pairs.items()}
    return IterationRecord(iteration, iteration + 1, {}, counts, {}, 0, extra or {})


def pictures(scores: list[float], name: str = "held") -> ImageSet:
    count = len(scores)
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return ImageSet(["a"] * count, list(range(count)), images, {name: np.array(scores, dtype=np.float32)})


def test_a_scorer_that_answers_the_same_is_named_with_its_answer() -> None:
    (sentence,) = of_iteration(record(2, STEADY, kept=3)).values()
    assert sentence.startswith(
        "scorer flat answered 0.5 for all 64 images of iteration 3, at least 40 of them different: it"
    )


def test_all_ties_are_called_out_and_some_are_not() -> None:
    found = of_iteration(record(0, tie=12, score_raised=4))
    assert found["ties"].startswith("all 12 pairs of iteration 1 that have rewards are ties")
    for pairs in ({"tie": 12, "kept": 1}, {"tie": 12, "small_gap": 1}, {"score_raised": 16}, {}):
        assert of_iteration(record(0, **pairs)) == {}


def test_held_out_scorers_are_looked_at_before_tuning() -> None:
    assert "answered 3 for all 16 images before tuning" in of_pictures(pictures([3.0] * 16))["held"]
    assert of_pictures(pictures([3.0] * 7)) == {}  # too few to say
    assert of_pictures(pictures([3.0] * 15 + [3.1])) == {}
    same = pictures([3.0] * 16)
    same.images[:] = same.images[0]
    assert of_pictures(same) == {}  # one picture has one score


def test_each_thing_is_said_once_with_how_often_it_came_back() -> None:
    history = [record(0, STEADY, kept=1), record(1, kept=1), record(2, STEADY, tie=2), record(3, STEADY, kept=1)]
    flat, ties = warnings(history)
    assert "iteration 1, at least 40 of them different: it tells nothing apart" in flat
    assert flat.endswith("(also in 2 further iterations).")
    assert ties.startswith("all 2 pairs of iteration 3")
    assert ties.endswith("finer steps.")
    assert warnings([record(0, kept=4)]) == []
    (only,) = warnings(history[:1], pictures([0.5] * 16, "flat"))
    assert "before tuning" in only
    assert only.endswith("(also in 1 further iteration).")


def test_a_log_hears_of_a_thing_once() -> None:
    said = SaidOnce()
    assert len(said.fresh(of_iteration(record(0, STEADY, kept=1)))) == 1
    assert said.fresh(of_iteration(record(1, STEADY, kept=1))) == []
    assert len(said.fresh(of_iteration(record(2, STEADY, tie=1)))) == 1
