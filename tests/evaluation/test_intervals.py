import math

import numpy as np
import pytest

from rayalign.evaluation.intervals import Interval, change, mean_interval, ratio_interval, win_rate


def test_mean_counts_images_and_resamples_prompts():
    # Prompt a: sum 3 of 2 images; prompt b: sum 6 of 1. Mean (3 + 6) / 3 = 3.
    # Two prompts have four equally likely resamples: aa -> 3/2, ab and ba -> 9/3 = 3, bb -> 6. Of these aa
    # and bb have probability 1/4 > 2.5%, so the percentiles are exactly 1.5 and 6.
    assert mean_interval([1.0, 2.0, 6.0], ["a", "a", "b"]) == Interval(3.0, 1.5, 6.0, 3)


def test_more_seeds_of_one_prompt_add_no_certainty():
    # Every image repeated 25 times: the prompts, the unit that is drawn, are the same; so is the interval.
    values, prompts = np.arange(8.0), list(range(8))
    once = mean_interval(values, prompts)
    often = mean_interval(np.repeat(values, 25), np.repeat(prompts, 25).tolist())
    assert (often.low, often.high) == pytest.approx((once.low, once.high))
    assert often.n == 200


def test_width_matches_the_normal_approximation():
    # 400 prompts, values 0 and 1 in equal number: standard error 0.5 / sqrt(400) = 0.025, so 0.5 +- 0.049.
    result = mean_interval([0.0, 1.0] * 200, list(range(400)))
    assert (result.low, result.high) == pytest.approx((0.451, 0.549), abs=0.004)


def test_the_same_seed_gives_the_same_bits_whatever_the_chunks(monkeypatch):
    values, prompts = np.random.default_rng(1).normal(size=50), list(range(50))
    whole = mean_interval(values, prompts, seed=3)
    monkeypatch.setattr("rayalign.evaluation.intervals.CHUNK", 50 * 7)
    assert mean_interval(values, prompts, seed=3) == whole
    assert mean_interval(values, prompts, seed=4) != whole


def test_failures_are_left_out_and_their_prompt_with_them():
    # c holds failures only: two prompts remain, as if c were never there.
    values = [1.0, 3.0, math.nan, math.inf]
    assert mean_interval(values, ["a", "b", "c", "c"]) == mean_interval([1.0, 3.0], ["a", "b"])


def test_one_prompt_knows_nothing_of_others():
    result = mean_interval([1.0, 2.0], ["a", "a"])
    assert result.mean == 1.5
    assert math.isnan(result.low)
    assert math.isnan(result.high)
    assert result.to_json() == {"mean": 1.5, "ci95": [None, None], "n": 2}


def test_nothing_to_average():
    assert mean_interval([math.nan], ["a"]).to_json() == {"mean": None, "ci95": [None, None], "n": 0}


def test_lengths_must_match():
    with pytest.raises(ValueError, match="one prompt each"):
        mean_interval([1.0, 2.0], ["a"])
    with pytest.raises(ValueError, match="pair up"):
        change(np.zeros(2), np.zeros(3), ["a", "b"])


def test_change_is_paired():
    # Prompts differ by 100, the change is 1 everywhere: no width at all.
    assert change(np.array([0.0, 100.0]), np.array([1.0, 101.0]), ["a", "b"]) == Interval(1.0, 1.0, 1.0, 2)


def test_win_rate_counts_ties_half_and_leaves_failures_out():
    before, after = np.array([1.0, 1.0, 1.0, 1.0, math.nan]), np.array([2.0, 1.0, 0.0, 5.0, 9.0])
    result = win_rate(before, after, list("abcde"))
    assert (result.mean, result.n) == (0.625, 4)  # (1 + 1/2 + 0 + 1) / 4
    assert 0 <= result.low < 0.625 < result.high <= 1


@pytest.mark.parametrize(
    ("after", "expected"), [(2.0, (1.0, 0.025**0.25, 1.0)), (0.0, (0.0, 0.0, 1 - 0.025**0.25))]
)
def test_winning_everything_is_not_certainty(after, expected):
    # 4 prompts, 2 images each, all won: the rate whose chance of 4 wins in 4 is 2.5% is 0.025^(1/4) = 0.398.
    result = win_rate(np.ones(8), np.full(8, after), list("aabbccdd"))
    assert (result.mean, result.low, result.high) == pytest.approx(expected)


def test_a_share_that_every_prompt_has_is_known_exactly() -> None:
    found = ratio_interval([1.0, 10.0, 100.0], [2.0, 20.0, 200.0])
    assert (found.mean, found.low, found.high, found.n) == (0.5, 0.5, 0.5, 3)


def test_a_ratio_s_interval_is_that_of_its_resamples() -> None:
    """Two prompts, 0/1 and 1/1: a resample is 0, 1/2, 1/2 or 1, so the 95% interval is [0, 1]."""
    found = ratio_interval([0.0, 1.0], [1.0, 1.0])
    assert (found.mean, found.low, found.high, found.n) == (0.5, 0.0, 1.0, 2)
    with_gap = ratio_interval([0.0, 1.0, math.nan, 3.0], [1.0, 1.0, 1.0, math.nan])
    assert with_gap == found


def test_a_ratio_of_nothing_and_of_one_prompt() -> None:
    nothing = ratio_interval([1.0, 2.0], [0.0, 0.0])
    assert math.isnan(nothing.mean)
    assert nothing.n == 0
    one = ratio_interval([1.0], [4.0])
    assert one.mean == 0.25
    assert math.isnan(one.low)
    # Resamples without a whole are left out: one of four here.
    half_empty = ratio_interval([0.0, 1.0], [0.0, 2.0])
    assert (half_empty.low, half_empty.high) == (0.5, 0.5)


def test_a_ratio_s_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match=r"must be \(P,\), got \(2,\) and \(1,\)"):
        ratio_interval([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match=r"must not be below 0, got -1\.0"):
        ratio_interval([1.0, 2.0], [1.0, -1.0])
