from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from rayalign.config import GuardConfig
from rayalign.evaluation.collapse import CollapseWatch, Verdict, judge
from rayalign.records import HeldOut

PROMPTS = 8
NAN = math.nan
# Of eight untuned prompts: mean 1, sample deviation sqrt(8/7 * 0.01) = 0.1069.
SPREAD = np.array([0.9, 1.1] * 4)


def held_out(version: int = 0, **by_prompt: Any) -> HeldOut:
    """Everything at 1 +- 0.1 by prompt, but what is given: a factor, or the values. Names have _ for /."""
    names = ("heldout/reward", "heldout/clip", "image/edge_density", "image/colour_entropy")
    names += ("image/saturation", "image/diversity")
    values = dict.fromkeys(names, SPREAD)
    for name, given in by_prompt.items():
        key = name.replace("_", "/", 1)
        values[key] = given * values[key] if isinstance(given, float) else np.asarray(given)
    lists = {name: list(map(float, value)) for name, value in values.items()}
    return HeldOut(version, 1.0, {}, {}, 16, 0, 0.0, lists)


UNTUNED = held_out()


def judged(heldout: tuple[str, ...] = ("clip",), trained_up: bool = False, **now: Any) -> Verdict:
    return judge(UNTUNED, held_out(5, **now), heldout, 0.3, 1.0, trained_up)


def test_a_reward_that_rises_alone_is_what_was_wanted() -> None:
    verdict = judged(heldout_reward=1.5)
    assert verdict.rose
    assert not verdict.collapsed
    assert str(verdict) == "no sign of collapse"


@pytest.mark.parametrize("name", ["edge_density", "colour_entropy", "saturation", "diversity"])
def test_a_statistic_that_falls_beyond_the_limit_while_the_reward_rises_is_collapse(name: str) -> None:
    verdict = judged(heldout_reward=1.5, **{f"image_{name}": 0.5})
    assert verdict.collapsed
    (fall,) = verdict.falls
    assert (fall.name, fall.before, fall.now) == (name, pytest.approx(1.0), pytest.approx(0.5))
    # Half of every prompt's, whatever it had: no doubt about the share.
    assert (fall.change.mean, fall.change.low, fall.change.high) == pytest.approx((-0.5, -0.5, -0.5))
    words = name.replace("_", " ")
    expected = f"the guiding reward rose while {words} fell from 1 to 0.5 (-50% [-50, -50], limit -30%)"
    assert str(verdict) == expected


def test_below_the_limit_or_without_a_reward_that_rose_it_is_none() -> None:
    assert judged(heldout_reward=1.5, image_edge_density=0.75).falls == ()
    fell_too = judged(heldout_reward=1.0, image_edge_density=0.2)
    assert (fell_too.rose, fell_too.collapsed, len(fell_too.falls)) == (False, False, 1)


def test_a_fall_that_noise_could_make_is_none() -> None:
    """Mean fall of 40%, but from prompts that went anywhere: its interval reaches above -30%."""
    wild = SPREAD * np.array([0.1, 1.1, 0.1, 1.1, 0.1, 1.1, 0.1, 1.1])
    assert 1 - wild.mean() > 0.3
    assert judged(heldout_reward=1.5, image_edge_density=wild).falls == ()
    # The same mean, from every prompt alike, is one.
    assert judged(heldout_reward=1.5, image_edge_density=float(wild.mean())).collapsed


def test_a_reward_whose_rise_is_noise_has_not_risen() -> None:
    wild = SPREAD + np.array([2.0, -2.0, 2.0, -2.0, 2.0, -2.0, 2.1, -2.0])
    assert not judged(heldout_reward=wild, image_diversity=0.1).rose


def test_a_held_out_scorer_is_measured_in_deviations_between_prompts() -> None:
    # Deviation 0.1069: a fall of 0.1 everywhere is 0.94 of it, of 0.12 is 1.12.
    assert judged(heldout_reward=1.5, heldout_clip=SPREAD - 0.1).falls == ()
    verdict = judged(heldout_reward=1.5, heldout_clip=SPREAD - 0.12)
    (fall,) = verdict.falls
    assert (fall.name, fall.of_image) == ("clip", False)
    assert fall.change.mean == pytest.approx(-0.12 / SPREAD.std(ddof=1))
    assert "clip fell from 1 to 0.88 (-1.1 deviations [-1.1, -1.1], limit -1.0)" in str(verdict)
    assert judged(heldout=(), heldout_reward=1.5, heldout_clip=SPREAD - 0.12).falls == ()  # a guiding one may


def test_the_guiding_reward_may_fall_on_held_out_prompts_while_training_s_own_rises() -> None:
    assert not judged(heldout_reward=SPREAD - 0.2).collapsed
    verdict = judged(trained_up=True, heldout_reward=SPREAD - 0.2)
    assert verdict.collapsed
    assert [fall.name for fall in verdict.falls] == ["reward"]


def test_what_is_missing_is_no_sign() -> None:
    nothing = held_out(5, heldout_reward=1.5, image_diversity=[NAN] * PROMPTS, heldout_clip=[NAN] * PROMPTS)
    assert judge(UNTUNED, nothing, ("clip", "unknown"), 0.3, 1.0).falls == ()
    one_left = [NAN] * 7 + [0.01]  # of one prompt nothing is known about others
    assert judged(heldout_reward=1.5, image_diversity=one_left).falls == ()
    flat = held_out(0, image_edge_density=[0.0] * PROMPTS)  # nothing to lose
    assert judge(flat, flat, (), 0.3, 1.0).falls == ()
    old = HeldOut(0, 1.0, {}, {}, 16, 0, 0.0)  # without values by prompt
    assert not judge(old, held_out(5, image_edge_density=0.1), (), 0.3, 1.0, trained_up=True).collapsed


def watch(**settings: Any) -> CollapseWatch:
    return CollapseWatch(GuardConfig(**settings), ("clip",))


def test_a_watch_knows_the_last_good_version_and_survives_a_resume() -> None:
    first = watch(max_fall=0.3)
    assert first.look(held_out(2, heldout_reward=1.5), {}) is None  # the untuned model was not measured
    first.begin(UNTUNED)
    first.trained({"reward_high": 1.0})
    first.trained({"reward_high": 7.0})
    assert not first.look(held_out(2, heldout_reward=1.2, image_diversity=0.9), {}).collapsed  # type: ignore[union-attr]
    resumed = watch(max_fall=0.3)
    resumed.restore(json.loads(json.dumps(first.state())))
    for each in (first, resumed):
        assert each.last_good == 2
        verdict = each.look(held_out(4, image_diversity=0.1), {"reward_low": 1.5, "reward_high": 2.0})
        assert verdict is not None
        assert verdict.collapsed  # by the reward of training, above the first iteration's
        assert each.last_good == 2


def test_values_come_back_from_a_history_file_with_null_for_nan() -> None:
    now = held_out(5, heldout_reward=1.5, image_diversity=0.1)
    nulls: Any = {name: [None, *values[1:]] for name, values in now.by_prompt.items()}
    verdict = judge(UNTUNED, HeldOut(5, 1.0, {}, {}, 16, 0, 0.0, nulls), (), 0.3, 1.0)
    assert [fall.name for fall in verdict.falls] == ["diversity"]
    assert verdict.falls[0].change.n == PROMPTS - 1
