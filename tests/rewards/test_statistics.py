import json
import math

import numpy as np
import pytest

from rayalign.config import RewardConfig
from rayalign.records import MOMENTS, Standard
from rayalign.rewards.statistics import (
    BUCKETS,
    Moments,
    bucket,
    from_plain,
    merge_by_scorer,
    merged,
    moments_of,
    standard_metrics,
    standards,
    to_plain,
)


def test_by_hand() -> None:
    # 1, 2, 6: mean 3, squared deviations 4 + 1 + 9.
    found = moments_of(np.array([1.0, 2.0, math.nan, 6.0]), [0, 2, 5, 0])
    assert found == Moments(3, 3.0, 14.0, 1.0, 6.0, 0b101)
    assert found.different == 2
    assert found.std == pytest.approx(math.sqrt(14 / 3))
    assert len(found.packed()) == MOMENTS
    assert Moments.unpacked(found.packed()) == found
    assert moments_of(np.array([math.inf, math.nan])) == Moments()


def test_merging_parts_is_the_whole() -> None:
    scores = 20 + np.random.default_rng(0).standard_normal(1000)
    parts = [moments_of(part) for part in np.split(scores, [1, 1, 300, 640])]
    total = Moments()
    for part in parts:
        total = merged(total, part)
    assert (total.count, total.low, total.high) == (1000, scores.min(), scores.max())
    assert total.mean == pytest.approx(scores.mean(), rel=1e-12)
    assert total.std == pytest.approx(scores.std(), rel=1e-12)
    assert merged(total, Moments()) == total


def test_scorers_merge_apart_and_in_order() -> None:
    first, second = {"a": moments_of(np.ones(2))}, {"a": moments_of(np.zeros(2)), "b": moments_of(np.ones(1))}
    total = merge_by_scorer(first, [second])
    assert (total["a"].count, total["a"].mean, total["a"].m2) == (4, 0.5, 1.0)
    assert total["b"].count == 1
    assert first["a"].count == 2  # untouched


def test_a_checkpoint_s_json_keeps_every_bit() -> None:
    scores = np.random.default_rng(1).standard_normal(7) / 3
    statistics = {"a": moments_of(scores, [0, 1, 2, 3, 4, 5, BUCKETS - 1]), "none": Moments()}
    assert from_plain(json.loads(json.dumps(to_plain(statistics)))) == statistics


def test_only_standardised_scorers_have_a_standard() -> None:
    rewards = [RewardConfig(scorer="a", scale="standardised"), RewardConfig(scorer="b")]
    statistics = {name: moments_of(np.array([1.0, 5.0])) for name in "ab"}
    assert standards(rewards, statistics) == {"a": Standard(3.0, 2.0)}
    assert standard_metrics(standards(rewards, statistics)) == {"score_mean/a": 3.0, "score_std/a": 2.0}


def test_a_steady_scorer_is_centred_and_not_blown_up() -> None:
    rounding = np.float32(20) + np.array([0, 1, -1], dtype=np.float32) * np.spacing(np.float32(20))
    for scores in (np.full(3, 20.0), rounding):
        moments = moments_of(scores)
        assert moments.steady
        (standard,) = standards([RewardConfig(scorer="a", scale="standardised")], {"a": moments}).values()
        assert standard == Standard(moments.mean, 1.0)
    assert not moments_of(np.array([20.0, 20.01])).steady


def test_equal_answers_say_nothing_only_for_different_images() -> None:
    pictures = np.random.default_rng(2).random((40, 3, 64, 64), dtype=np.float32)
    buckets = [bucket(picture) for picture in pictures]
    assert 20 < len(set(buckets)) <= 40
    flat = np.full(40, 20.0)
    halves = [moments_of(flat[:20], buckets[:20]), moments_of(flat[20:], buckets[20:])]
    assert merged(*halves) == moments_of(flat, buckets)
    assert merged(*halves).says_nothing
    same = moments_of(
        flat, [bucket(pictures[0].copy())] * 40
    )  # a model that draws one picture is not the scorer's fault
    assert merged(same, same).different == 1
    assert not same.says_nothing
    assert not moments_of(flat + np.arange(40), buckets).says_nothing
