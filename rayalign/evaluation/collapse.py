"""The collapse alarm: does the reward rise while the pictures, or a scorer that was held out, fall?

A policy that exploits its reward loses edges, colours, variety, or what another scorer values. The same held-out
prompts and seeds are measured now and then (`records.HeldOut`); each measurement is compared with the untuned
model's, prompt by prompt, so that what prompts differ in cancels out.

Rose: the 95% interval of the guiding reward's mean change lies above 0 (on held-out prompts or, of training's own
pictures, the interval of their reward above the first iteration's).

Fell: a bootstrap over prompts gives the 95% interval of the mean change; what counts is its *upper* end, the smallest
fall that the noise allows.

    image statistic s    sum (s - s_0) / sum s_0          upper end  <  -max_fall          0 is a flat picture: a share
    held-out scorer r    mean (r - r_0) / deviation r_0   upper end  <  -max_fall_heldout  no zero of its own

Sums, mean and deviation are over prompts, s_0 and r_0 the untuned pictures'. A share of 0.3 means that 30% of the
edges, colours (in bits) or variety are gone *for sure*. A reward that pays for less detail, JPEG size for one, takes
some and stays below: the limits are for what it takes beyond (docs/guards.md has the measurements they come from).

With few prompts (8 in a measurement) a percentile interval is a little too narrow, which a limit far from 0 forgives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rayalign.config import GuardConfig
from rayalign.evaluation.intervals import Interval, mean_interval, ratio_interval
from rayalign.records import HeldOut

REWARD = "heldout/reward"
STATISTICS = ("edge_density", "colour_entropy", "saturation", "diversity")


@dataclass(frozen=True)
class Fall:
    """Something fell beyond its limit. `change` is relative: to the untuned mean, or in its deviations."""

    name: str
    before: float
    now: float
    change: Interval
    limit: float
    of_image: bool

    def __str__(self) -> str:
        numbers = (100 * self.change.mean, 100 * self.change.low, 100 * self.change.high, 100 * self.limit)
        if self.of_image:
            how = "{:.0f}% [{:.0f}, {:.0f}], limit -{:.0f}%".format(*numbers)
        else:
            how = "{:.1f} deviations [{:.1f}, {:.1f}], limit -{:.1f}".format(*(value / 100 for value in numbers))
        return f"{self.name.replace('_', ' ')} fell from {self.before:.3g} to {self.now:.3g} ({how})"


@dataclass(frozen=True)
class Verdict:
    """Of one measurement. It is collapse if the reward rose and something fell."""

    version: int
    rose: bool
    falls: tuple[Fall, ...]

    @property
    def collapsed(self) -> bool:
        return self.rose and bool(self.falls)

    def __str__(self) -> str:
        if not self.collapsed:
            return "no sign of collapse"
        return "the guiding reward rose while " + ", ".join(map(str, self.falls))


def judge(
    untuned: HeldOut,
    now: HeldOut,
    heldout: Sequence[str],
    max_fall: float,
    max_fall_heldout: float,
    trained_up: bool = False,
) -> Verdict:
    """Compares a measurement with the untuned model's, as the file's head says.

    Args:
        heldout: scorers that do not guide.
        max_fall: share of an untuned image statistic, above 0.
        max_fall_heldout: deviations of a held-out scorer between untuned prompts, above 0.
        trained_up: the reward of training's own pictures has risen for sure.

    What is missing on either side (a failed score, diversity with one seed a prompt) is no sign of anything.
    """
    reward = _mean_change(*_both(untuned, now, REWARD))
    falls = []
    for name in STATISTICS:
        before, after = _both(untuned, now, f"image/{name}")
        falls.append(_fall(name, before, after, ratio_interval(after - before, before), max_fall, of_image=True))
    # Guiding reward on held-out prompts too: it may fall there while training's own rises.
    for name in (REWARD, *(f"heldout/{scorer}" for scorer in heldout)):
        before, after = _both(untuned, now, name)
        change = _scaled(_mean_change(before, after), _deviation(before))
        falls.append(_fall(name.partition("/")[2], before, after, change, max_fall_heldout, of_image=False))
    return Verdict(now.version, trained_up or reward.low > 0, tuple(fall for fall in falls if fall is not None))


def _fall(
    name: str, before_P: np.ndarray, after_P: np.ndarray, change: Interval, limit: float, of_image: bool
) -> Fall | None:
    """None unless it fell beyond the limit for sure; NaN is no fall."""
    if not change.high < -limit:
        return None
    return Fall(name, float(np.nanmean(before_P)), float(np.nanmean(after_P)), change, limit, of_image)


def _mean_change(before_P: np.ndarray, after_P: np.ndarray) -> Interval:
    return mean_interval(after_P - before_P, range(len(before_P)))


def _deviation(values_P: np.ndarray) -> float:
    """Between prompts; NaN of fewer than two."""
    return float(np.nanstd(values_P, ddof=1)) if np.isfinite(values_P).sum() > 1 else math.nan


def _scaled(interval: Interval, unit: float) -> Interval:
    if not unit > 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    return Interval(interval.mean / unit, interval.low / unit, interval.high / unit, interval.n)


def _both(untuned: HeldOut, now: HeldOut, name: str) -> tuple[np.ndarray, np.ndarray]:
    """(P,) of one metric, by prompt, then and now; empty where one was not measured. A null of JSON is NaN."""
    before, after = (np.array(one.by_prompt.get(name, ()), dtype=np.float64) for one in (untuned, now))
    return (before, after) if before.shape == after.shape else (np.empty(0), np.empty(0))


class CollapseWatch:
    """Judges one measurement after another; remembers what they are compared with, and which was the last good one.

    Its `state` goes into the checkpoint, so that a resumed run compares with the same untuned pictures.
    """

    def __init__(self, config: GuardConfig, heldout: Sequence[str]) -> None:
        self._config, self._heldout = config, heldout
        self._untuned: HeldOut | None = None
        self._first_high = math.nan  # upper end of the training reward's interval in the first iteration
        self.last_good: int | None = None  # policy version
        self.alarmed = False

    @property
    def begun(self) -> bool:
        """There is something to compare with."""
        return self._untuned is not None

    def begin(self, untuned: HeldOut) -> None:
        """Of version 0, which is good by definition."""
        self._untuned, self.last_good = untuned, untuned.version

    def trained(self, metrics: dict[str, float]) -> None:
        """Every iteration's metrics (`reward_high` of the first is kept)."""
        if math.isnan(self._first_high):
            self._first_high = metrics.get("reward_high", math.nan)

    def look(self, now: HeldOut, metrics: dict[str, float]) -> Verdict | None:
        """The verdict on a measurement; None where the untuned model was not measured."""
        if self._untuned is None:
            return None
        config, trained_up = self._config, metrics.get("reward_low", math.nan) > self._first_high
        limits = config.max_fall, config.max_fall_heldout
        verdict = judge(self._untuned, now, self._heldout, *limits, trained_up)
        if not verdict.collapsed:
            self.last_good = now.version
        return verdict

    def state(self) -> dict[str, Any]:
        return {
            "untuned": None if self._untuned is None else asdict(self._untuned),
            "first_high": self._first_high if math.isfinite(self._first_high) else None,
            "last_good": self.last_good,
            "alarmed": self.alarmed,
        }

    def restore(self, state: dict[str, Any]) -> None:
        untuned, first_high = state.get("untuned"), state.get("first_high")
        self._untuned = None if untuned is None else HeldOut(**untuned)
        self._first_high = math.nan if first_high is None else first_high
        self.last_good, self.alarmed = state.get("last_good"), state.get("alarmed", False)
