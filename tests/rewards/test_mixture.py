import asyncio

import numpy as np
import pytest

from rayalign.errors import ScoringError
from rayalign.rewards.local import LocalScoreFn
from rayalign.rewards.mixture import check_answer, mix
from rayalign.rewards.protocol import Scorer
from rayalign.rewards.stub import StubScorer

NAN, INF = float("nan"), float("inf")
GREY = np.full((2, 3, 4, 4), 0.5, dtype=np.float32)


def test_weighted_sum_by_hand() -> None:
    scores = mix({"a": 2.0, "b": -0.5}, {"a": np.array([1.0, 2.0]), "b": np.array([4.0, 8.0])}, seconds=3.0)
    # 2 * 1 - 0.5 * 4 = 0;  2 * 2 - 0.5 * 8 = 0
    assert scores.total_B.tolist() == [0.0, 0.0]
    assert scores.total_B.dtype == np.float32
    assert scores.seconds == 3.0


@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_a_failed_part_fails_the_entry_whatever_its_weight(weight: float) -> None:
    scores = mix({"a": 1.0, "b": weight}, {"a": np.array([1.0, 1, 1]), "b": np.array([NAN, INF, -INF])})
    assert scores.failed_B.all()
    assert np.isnan(scores.total_B).all()
    assert np.isnan(scores.parts["b"]).all()
    assert scores.parts["a"].tolist() == [1.0, 1.0, 1.0]


def test_a_held_out_failure_costs_no_entry() -> None:
    scores = mix({"a": 1.0}, {"a": np.array([1.0]), "held": np.array([NAN])})
    assert scores.total_B.tolist() == [1.0]
    assert np.isnan(scores.parts["held"][0])


def test_opposite_infinities_and_overflow_are_no_numbers() -> None:
    assert np.isnan(mix({"a": 1.0, "b": 1.0}, {"a": np.array([INF]), "b": np.array([-INF])}).total_B[0])
    assert np.isnan(mix({"a": 1e30}, {"a": np.array([1e30])}).total_B[0])  # 1e60 is no float32


def test_refuses_missing_and_ragged_parts() -> None:
    with pytest.raises(ScoringError, match=r"lack \['b'\]"):
        mix({"a": 1.0, "b": 1.0}, {"a": np.zeros(2)})
    with pytest.raises(ScoringError, match="B the same"):
        mix({"a": 1.0, "b": 1.0}, {"a": np.zeros(2), "b": np.zeros(1)})


def test_an_answer_is_one_number_for_each_image() -> None:
    assert check_answer([1, 2], 2).dtype == np.float32
    for answer in ([1.0], [[1.0, 2.0]], ["x", "y"], None, 3.0):
        with pytest.raises(ScoringError):
            check_answer(answer, 2)


def test_local_score_fn_mixes_and_measures() -> None:
    score = LocalScoreFn({"stub": (StubScorer(), 2.0)}, heldout={"red": StubScorer(rule="red")})
    scores = asyncio.run(score(GREY, ["", ""]))
    assert scores.total_B.tolist() == [1.0, 1.0]  # 2 * 0.5
    assert scores.parts["red"].tolist() == [0.0, 0.0]
    assert scores.seconds > 0


@pytest.mark.parametrize("fail", ["raise", "short"])
def test_local_failure_is_nan_and_logged(fail: str, caplog: pytest.LogCaptureFixture) -> None:
    broken = StubScorer(fail=fail)  # type: ignore[arg-type]
    scores = asyncio.run(LocalScoreFn({"broken": (broken, 1.0)})(GREY, ["", ""]))
    assert scores.failed_B.tolist() == [True, True]
    assert "scorer broken failed on 2 images" in caplog.text


def test_stub_is_a_scorer() -> None:
    assert isinstance(StubScorer(), Scorer)
