"""What a scorer's answers were like: count, mean, spread, extremes. Pure; merged exactly, whatever the grouping.

"Updating Formulae and a Pairwise Algorithm for Computing Sample Variances" by Chan, Golub, LeVeque (1979):

    delta = mean_b - mean_a        n = n_a + n_b
    mean  = mean_a + delta n_b / n        m2 = m2_a + m2_b + delta^2 n_a n_b / n
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from types import MappingProxyType

import numpy as np

from rayalign.config import RewardConfig
from rayalign.records import Standard

# Below this share of the mean a difference is float32 rounding; dividing by its spread would rank the rounding.
ROUNDING = 1e-6
TELLING_IMAGES = 8  # from so many different ones on, equal answers are called out
BUCKETS = 52  # as many bits as a float64 carries exactly
SAMPLED_PIXELS = 4096  # of an image's values, enough to tell it from others at a small cost


@dataclass(frozen=True)
class Moments:
    """Of a scorer's answers, failed ones left out. float64 arithmetic."""

    count: float = 0.0
    mean: float = 0.0
    m2: float = 0.0  # sum of squared deviations from the mean
    low: float = math.inf
    high: float = -math.inf
    images: int = 0  # bits: which of the BUCKETS of `bucket` their images fall into

    @property
    def different(self) -> int:
        """Different images among them, at least: as many as there are buckets that one fell into."""
        return self.images.bit_count()

    @property
    def std(self) -> float:
        """Of the population, 0 where nothing was scored."""
        return math.sqrt(self.m2 / self.count) if self.count else 0.0

    @property
    def steady(self) -> bool:
        """No difference between any two answers, but for rounding."""
        return self.high - self.low <= ROUNDING * abs(self.mean)

    @property
    def says_nothing(self) -> bool:
        """One answer for so many different images that it is not their doing."""
        return self.steady and self.different >= TELLING_IMAGES

    def packed(self) -> list[float]:
        """`records.MOMENTS` numbers; `unpacked` reads them back."""
        return [float(value) for value in astuple(self)]

    @classmethod
    def unpacked(cls, values: Sequence[float]) -> Moments:
        count, mean, m2, low, high, images = values
        return cls(count, mean, m2, low, high, int(images))


ByScorer = Mapping[str, Moments]
NO_SCORES: ByScorer = MappingProxyType({})


def moments_of(scores_B: np.ndarray, bucket_B: Sequence[int] = ()) -> Moments:
    """Of the finite ones of `scores_B`, any float (B,). `bucket_B`: `bucket` of each image."""
    usable_B = np.isfinite(scores_B)
    values = np.asarray(scores_B, dtype=np.float64)[usable_B]
    if not len(values):
        return Moments()
    mean = float(values.mean())
    images = sum(1 << one for one in {one for one, usable in zip(bucket_B, usable_B, strict=False) if usable})
    m2 = float(((values - mean) ** 2).sum())
    return Moments(float(len(values)), mean, m2, float(values.min()), float(values.max()), images)


def merged(one: Moments, other: Moments) -> Moments:
    """Of both together. Not associative to the last bit, so merge in a fixed order (tickets by number)."""
    count = one.count + other.count
    if not count:
        return one
    delta = other.mean - one.mean
    return Moments(
        count,
        one.mean + delta * other.count / count,
        one.m2 + other.m2 + delta**2 * one.count * other.count / count,
        min(one.low, other.low),
        max(one.high, other.high),
        one.images | other.images,
    )


def merge_by_scorer(one: ByScorer, others: Iterable[ByScorer]) -> dict[str, Moments]:
    """`one` and each of `others`, in this order."""
    total = dict(one)
    for other in others:
        total |= {name: merged(total.get(name, Moments()), moments) for name, moments in other.items()}
    return total


def to_plain(statistics: ByScorer) -> dict[str, list[float]]:
    """As JSON holds it; decimals of float64 are exact both ways."""
    return {name: moments.packed() for name, moments in statistics.items()}


def from_plain(plain: Mapping[str, Sequence[float]]) -> dict[str, Moments]:
    return {name: Moments.unpacked(values) for name, values in plain.items()}


def standards(rewards: Iterable[RewardConfig], statistics: ByScorer) -> dict[str, Standard]:
    """What `mix` subtracts and divides by, of the scorers whose scale is `standardised`.

    A scorer that has always answered the same is only centred: it says nothing, and must not say rounding.
    """
    found = {reward.scorer: statistics[reward.scorer] for reward in rewards if reward.scale == "standardised"}
    return {name: Standard(one.mean, 1.0 if one.steady else one.std) for name, one in found.items()}


def standard_metrics(found: Mapping[str, Standard]) -> dict[str, float]:
    """As curves: score_mean/<scorer>, score_std/<scorer>."""
    return {
        f"score_{name}/{scorer}": value
        for scorer, standard in found.items()
        for name, value in standard._asdict().items()
    }


def bucket(image: np.ndarray) -> int:
    """One of BUCKETS, by some of the image's values: images in different buckets are different."""
    flat = image.reshape(-1)
    return zlib.crc32(flat[:: max(1, flat.size // SAMPLED_PIXELS)].tobytes()) % BUCKETS
