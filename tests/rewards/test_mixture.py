import asyncio

import numpy as np
import pytest

from rayalign.errors import ScoringError
from rayalign.records import UNSCORED_STATUSES, Standard
from rayalign.rewards.local import LocalScoreFn
from rayalign.rewards.mixture import check_answer, mix, mix_gradients, unscored_status
from rayalign.rewards.protocol import Scorer
from rayalign.rewards.stub import StubScorer

NAN, INF = float("nan"), float("inf")
RULES = {"stub": "brightness", "red": "red"}
GREY = np.full((2, 3, 4, 4), 0.5, dtype=np.float32)


def test_weighted_sum_by_hand() -> None:
    scores = mix({"a": 2.0, "b": -0.5}, {"a": np.array([1.0, 2.0]), "b": np.array([4.0, 8.0])}, seconds=3.0)
    # 2 * 1 - 0.5 * 4 = 0;  2 * 2 - 0.5 * 8 = 0
    assert scores.total_B.tolist() == [0.0, 0.0]
    assert scores.total_B.dtype == np.float32
    assert scores.seconds == 3.0


def test_standardised_parts_are_weighted_on_one_scale_and_kept_as_they_were() -> None:
    parts = {"a": np.array([20.0, 22.0]), "b": np.array([0.2, 0.3])}
    scores = mix({"a": 1.0, "b": 0.5}, parts, standards={"a": Standard(21.0, 2.0)})
    # (20 - 21) / 2 + 0.5 * 0.2 = -0.4;  0.5 + 0.15
    assert scores.total_B.tolist() == pytest.approx([-0.4, 0.65])
    assert scores.parts["a"].tolist() == [20.0, 22.0]


def test_a_standardised_gradient_is_that_of_the_total() -> None:
    weights, standards = {"stub": 3.0, "red": 0.5}, {"stub": Standard(0.4, 0.25)}
    local = LocalScoreFn({"stub": (StubScorer(), 3.0), "red": (StubScorer(rule="red"), 0.5)})
    local.standards = standards
    images = np.random.default_rng(0).random((2, 3, 4, 4), dtype=np.float32)
    scores, grads = asyncio.run(local.score_and_grad(images, ["", ""]))
    moved = images.copy()
    moved[:, 0, 1, 2] += 0.5
    higher = asyncio.run(local(moved, ["", ""])).total_B
    # Both scorers are linear, so one step tells the slope: 3 / 0.25 / 48 + 0.5 / 16.
    np.testing.assert_allclose((higher - scores.total_B) / 0.5, grads[:, 0, 1, 2], rtol=1e-4)
    np.testing.assert_allclose(grads[:, 0, 1, 2], 12 / 48 + 0.5 / 16, rtol=1e-6)
    raw = {name: StubScorer(rule=rule).score_and_grad(images, ["", ""])[1] for name, rule in RULES.items()}
    np.testing.assert_array_equal(mix_gradients(weights, raw, standards), grads)


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


def test_an_entry_without_a_score_has_the_first_scorer_s_reason() -> None:
    parts = {"a": np.array([1.0, NAN, 1.0]), "b": np.array([NAN, NAN, NAN]), "c": np.array([INF, 1.0, 1.0])}
    scores = mix({"a": 1.0, "b": 1.0, "c": 1.0}, parts, reasons={"a": "", "b": "timeout"})
    assert scores.unscored_B.tolist() == ["score_timeout", "score_not_finite", "score_timeout"]
    assert mix({"a": 1e30}, {"a": np.array([1e30, 1])}).unscored_B.tolist() == ["score_not_finite", ""]
    assert mix({"a": 1.0}, parts, reasons={"b": "timeout"}).unscored_B.tolist() == [
        "",
        "score_not_finite",
        "",
    ]  # held out


def test_every_reason_has_a_status_to_be_counted_under() -> None:
    reasons = ("timeout", "raised ValueError", "not finite", "wrong length", "replica died", "service RayTaskError")
    found = [unscored_status(reason) for reason in reasons]
    assert found == list(UNSCORED_STATUSES[1:])


def test_local_failures_say_why() -> None:
    for fail, status in (("raise", "score_raised"), ("short", "score_wrong_length"), ("nan", "score_not_finite")):
        score = LocalScoreFn({"broken": (StubScorer(fail=fail), 1.0)})  # type: ignore[arg-type]
        for scores in (asyncio.run(score(GREY, ["", ""])), asyncio.run(score.score_and_grad(GREY, ["", ""]))[0]):
            assert scores.unscored_B[0] == status
