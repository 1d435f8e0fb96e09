"""Means and win rates with 95% intervals, by a bootstrap over prompts.

Images of one prompt are not independent (an easy prompt scores high with every seed), so the unit that is
drawn again is the prompt with all its images, not the image. Shape letters: N images, P prompts, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

NUM_RESAMPLES = 10_000
LEVELS = (0.025, 0.975)  # the percentiles that bound 95%
CHUNK = 4_000_000  # indices drawn at once: bounds the memory at 32 MB, whatever the number of prompts


@dataclass(frozen=True)
class Interval:
    """A mean and its 95% interval; `n` counts the values behind it. Below two prompts bounds are NaN."""

    mean: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, float | int | list[float | None] | None]:
        """{"mean", "ci95": [low, high], "n"}; what is not a number becomes null, since JSON has no NaN."""
        mean, low, high = (
            value if math.isfinite(value) else None for value in (self.mean, self.low, self.high)
        )
        return {"mean": mean, "ci95": [low, high], "n": self.n}


def mean_interval(
    values: np.ndarray | Sequence[float],
    prompts: Sequence[Hashable],
    *,
    seed: int = 0,
    resamples: int = NUM_RESAMPLES,
) -> Interval:
    """The mean of `values` with a 95% interval from the cluster bootstrap, percentile method.

        m   = sum_p s_p / sum_p c_p               s_p: sum, c_p: count of prompt p's values
        m_r = sum_j s_{i_rj} / sum_j c_{i_rj}     i_rj uniform over the P prompts, j = 1..P, r = 1..R
        interval = [2.5th, 97.5th percentile of m_1..m_R]

    See "An Introduction to the Bootstrap" by Efron and Tibshirani, sections 8.2 and 13.3.

    Args:
        values: (N,); those that are not finite are failures and left out.
        prompts: (N,); what a value belongs to. Equal entries are one cluster.
        seed: of the draws. The same seed and prompts draw the same clusters, so two means stay comparable.

    With a single prompt nothing is known about others: the bounds are NaN, not a width of zero.
    Raises ValueError unless both have the same length.
    """
    values_N = np.asarray(values, dtype=np.float64)
    if values_N.ndim != 1 or len(values_N) != len(prompts):
        raise ValueError(
            f"values must be (N,) with one prompt each, got {values_N.shape} and {len(prompts)} prompts"
        )
    usable_N = np.isfinite(values_N)
    if not usable_N.any():
        return Interval(math.nan, math.nan, math.nan, 0)
    numbers: dict[Hashable, int] = {}
    cluster_N = np.array([numbers.setdefault(prompt, len(numbers)) for prompt in prompts])[usable_N]
    sums_P = np.bincount(cluster_N, weights=values_N[usable_N], minlength=len(numbers))
    counts_P = np.bincount(cluster_N, minlength=len(numbers))
    sums_P, counts_P = sums_P[counts_P > 0], counts_P[counts_P > 0]

    mean, n = float(sums_P.sum() / counts_P.sum()), int(counts_P.sum())
    if len(counts_P) < 2:
        return Interval(mean, math.nan, math.nan, n)
    low, high = np.quantile(_resampled_means(sums_P, counts_P, seed, resamples), LEVELS)
    return Interval(mean, float(low), float(high), n)


def ratio_interval(
    parts: np.ndarray | Sequence[float],
    wholes: np.ndarray | Sequence[float],
    *,
    seed: int = 0,
    resamples: int = NUM_RESAMPLES,
) -> Interval:
    """sum_p parts / sum_p wholes with a 95% interval by a bootstrap over prompts p, percentile method.

    A prompt brings its part and its whole together, so that what is the same share of every prompt is known exactly,
    however much prompts differ in size.

    Args:
        parts, wholes: (P,), one entry a prompt; those of which either is not finite are left out.

    NaN without a whole above 0, and bounds of NaN with fewer than two prompts. Raises ValueError unless both have the
    same length, or on a whole below 0.
    """
    parts_P, wholes_P = np.asarray(parts, dtype=np.float64), np.asarray(wholes, dtype=np.float64)
    if parts_P.ndim != 1 or parts_P.shape != wholes_P.shape:
        raise ValueError(f"parts and wholes must be (P,), got {parts_P.shape} and {wholes_P.shape}")
    usable_P = np.isfinite(parts_P) & np.isfinite(wholes_P)
    parts_P, wholes_P = parts_P[usable_P], wholes_P[usable_P]
    if (wholes_P < 0).any():
        raise ValueError(f"wholes must not be below 0, got {wholes_P.min()}")
    if not wholes_P.sum() > 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    mean, n = float(parts_P.sum() / wholes_P.sum()), len(parts_P)
    if n < 2:
        return Interval(mean, math.nan, math.nan, n)
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample may hold only prompts without a whole
        drawn = _resampled_means(parts_P, wholes_P, seed, resamples)
    low, high = np.quantile(drawn[np.isfinite(drawn)], LEVELS)
    return Interval(mean, float(low), float(high), n)


def _resampled_means(sums_P: np.ndarray, counts_P: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """float64 (R,): the mean of every resample, a few million draws at a time."""
    generator, num_prompts, means = np.random.default_rng(seed), len(sums_P), []
    rows = max(1, CHUNK // num_prompts)
    for start in range(0, resamples, rows):
        drawn = generator.integers(num_prompts, size=(min(rows, resamples - start), num_prompts))
        means.append(sums_P[drawn].sum(1) / counts_P[drawn].sum(1))
    return np.concatenate(means)


def change(
    before_N: np.ndarray, after_N: np.ndarray, prompts: Sequence[Hashable], *, seed: int = 0
) -> Interval:
    """mean(after - before) over pairs of one prompt and seed. Paired: what prompts differ in cancels out."""
    return mean_interval(_difference(before_N, after_N), prompts, seed=seed)


def win_rate(
    before_N: np.ndarray, after_N: np.ndarray, prompts: Sequence[Hashable], *, seed: int = 0
) -> Interval:
    """How often `after` beats `before`: mean(1[after > before] + 1/2 1[after = before]), in 0..1.

    Pairs in which either score failed are left out; `n` counts those that remain. Where all pairs were won,
    or all lost, all resamples agree and the bootstrap would claim certainty; then the bound is the exact
    (Clopper and Pearson) one of P wins out of P prompts, 0.025^(1/P).
    """
    difference_N = _difference(before_N, after_N)
    # np.sign keeps NaN, so that failures stay failures: (-1, 0, 1, NaN) -> (0, 1/2, 1, NaN).
    rate = mean_interval((np.sign(difference_N) + 1) / 2, prompts, seed=seed)
    if rate.mean not in (0.0, 1.0) or math.isnan(rate.low):
        return rate
    usable = np.isfinite(difference_N)
    num_prompts = len({prompt for prompt, use in zip(prompts, usable, strict=True) if use})
    bound = LEVELS[0] ** (1 / num_prompts)
    return replace(rate, low=bound) if rate.mean else replace(rate, high=1 - bound)


def _difference(before_N: np.ndarray, after_N: np.ndarray) -> np.ndarray:
    before_N, after_N = np.asarray(before_N, dtype=np.float64), np.asarray(after_N, dtype=np.float64)
    if before_N.shape != after_N.shape:
        raise ValueError(f"before and after must pair up, got {before_N.shape} and {after_N.shape}")
    usable_N = np.isfinite(before_N) & np.isfinite(after_N)
    return np.where(usable_N, after_N, np.nan) - np.where(usable_N, before_N, np.nan)
