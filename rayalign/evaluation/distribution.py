"""How far a set of pictures is from a set of reference pictures, as distributions of features: FID and KID.

Features come from an extractor (`features.py`), and a number means nothing without its name. Shape letters: N
pictures, M reference pictures, D features, S pictures of a subset.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

NUM_SUBSETS, SUBSET_SIZE = 100, 1000
MIN_PICTURES = 3  # the jackknife leaves one out, and the estimate from the rest still compares two


class BiasedDistanceWarning(UserWarning):
    """FID from too few pictures: the covariance is not of full rank."""


@dataclass(frozen=True)
class KernelDistance:
    """KID: an unbiased estimate of a squared distance, so it may fall below zero where the sets are alike."""

    mean: float
    std: float  # standard deviation of one estimate, from subsets or, where one holds everything, by the jackknife
    num_subsets: int
    subset_size: int  # pictures of each set in one estimate; the smaller set's where all are in it


@dataclass(frozen=True)
class DistributionDistance:
    """What a style report says of one model: both distances, and all that decides what they mean."""

    extractor: str
    num_pictures: int
    num_reference: int
    num_features: int
    fid: float
    kid: KernelDistance
    fid_note: str  # why FID must not be read alone; empty where it can

    def to_json(self) -> dict[str, Any]:
        kid = {"mean": self.kid.mean, "std": self.kid.std}
        return {
            "extractor": self.extractor,
            "num_pictures": self.num_pictures,
            "num_reference": self.num_reference,
            "num_features": self.num_features,
            "fid": self.fid,
            "fid_note": self.fid_note,
            "kid": kid | {"num_subsets": self.kid.num_subsets, "subset_size": self.kid.subset_size},
        }


def distribution_distance(
    features_ND: np.ndarray, reference_MD: np.ndarray, extractor: str, *, seed: int = 0
) -> DistributionDistance:
    """FID and KID of one set against the reference. Compare models with the same N, M and extractor only.

    `extractor` is the `name` of what made both arrays. Raises ValueError as `frechet_distance` does.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BiasedDistanceWarning)  # said in `fid_note`
        fid = frechet_distance(features_ND, reference_MD)
    return DistributionDistance(
        extractor=extractor,
        num_pictures=len(features_ND),
        num_reference=len(reference_MD),
        num_features=features_ND.shape[1],
        fid=fid,
        kid=kernel_distance(features_ND, reference_MD, seed=seed),
        fid_note=_bias(len(features_ND), len(reference_MD), features_ND.shape[1]),
    )


def frechet_distance(features_ND: np.ndarray, reference_MD: np.ndarray) -> float:
    """FID: the squared Frechet (2-Wasserstein) distance of the Gaussians with the two sets' moments.

        d^2 = |m_1 - m_2|^2 + tr C_1 + tr C_2 - 2 tr (C_1 C_2)^(1/2)        C: covariance, divided by N - 1

    See "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium" by Heusel et al.
    (https://arxiv.org/abs/1706.08500), eq. 6.

    With centred features X_1 = Q_1 R_1 / sqrt(N - 1) and so on, C = R^T R, and the eigenvalues of C_1 C_2 are the
    squared singular values of R_1 R_2^T: their sum is the last trace. No square root is taken of a rounding error,
    as an eigenvalue of C_1 C_2 that should be zero would ask for, and nothing is complex.

    In N it is biased upwards; where N <= D the covariance lacks rank on top of it. Then it warns.

    Raises:
        ValueError: not two finite arrays (N, D) and (M, D) of at least three rows.
    """
    _check(features_ND, reference_MD)
    if note := _bias(len(features_ND), len(reference_MD), features_ND.shape[1]):
        warnings.warn(note, BiasedDistanceWarning, stacklevel=2)
    (mean_one, root_one), (mean_two, root_two) = _moments(features_ND), _moments(reference_MD)
    trace = np.linalg.svd(root_one @ root_two.T, compute_uv=False).sum()
    squared = ((mean_one - mean_two) ** 2).sum() + (root_one**2).sum() + (root_two**2).sum() - 2 * trace
    return max(0.0, float(squared))  # of two equal sets: a rounding error, of either sign


def kernel_distance(
    features_ND: np.ndarray,
    reference_MD: np.ndarray,
    *,
    num_subsets: int = NUM_SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = 0,
) -> KernelDistance:
    """KID: the squared maximum mean discrepancy under k(x, y) = (x.y / D + 1)^3, unbiased at every N.

        mmd^2 = sum_{i != j} k(x_i, x_j) / (n (n - 1)) + sum_{i != j} k(y_i, y_j) / (m (m - 1))
                - 2 sum_ij k(x_i, y_j) / (n m)

    See "Demystifying MMD GANs" by Binkowski et al. (https://arxiv.org/abs/1801.01401), eq. 4 and section 4.

    The mean over `num_subsets` subsets of `subset_size` pictures (fewer where a set has fewer), each drawn without
    replacement. Where both sets fit into one subset all subsets would be the same: then one estimate from all
    pictures, and the deviation of such an estimate by leaving out each picture in turn.

    Raises:
        ValueError: as `frechet_distance`.
    """
    _check(features_ND, reference_MD)
    features_ND, reference_MD = features_ND.astype(np.float64), reference_MD.astype(np.float64)
    smaller = min(len(features_ND), len(reference_MD))
    if max(len(features_ND), len(reference_MD)) <= subset_size:
        mean, std = _jackknifed(features_ND, reference_MD)
        return KernelDistance(mean, std, 1, smaller)
    size, generator = min(subset_size, smaller), np.random.default_rng(seed)
    estimates = [
        _discrepancy(
            features_ND[generator.choice(len(features_ND), size, replace=False)],
            reference_MD[generator.choice(len(reference_MD), size, replace=False)],
        )
        for _ in range(num_subsets)
    ]
    return KernelDistance(float(np.mean(estimates)), float(np.std(estimates)), num_subsets, size)


def _discrepancy(x_SD: np.ndarray, y_SD: np.ndarray) -> float:
    within = sum(_off_diagonal(_kernel(z, z)).sum() / (len(z) * (len(z) - 1)) for z in (x_SD, y_SD))
    return float(within - 2 * _kernel(x_SD, y_SD).mean())


def _jackknifed(x_ND: np.ndarray, y_MD: np.ndarray) -> tuple[float, float]:
    """The estimate from all pictures and its standard deviation, of two independent samples:

        var = (n - 1)/n sum_i (e_{-i} - e_bar)^2 + the same over the other set

    See "An Introduction to the Bootstrap" by Efron and Tibshirani, eq. 11.5. An estimate without picture i follows
    from the sums of its row, so all of them cost no more than one.
    """
    n, m = len(x_ND), len(y_MD)
    xx, yy, xy = _off_diagonal(_kernel(x_ND, x_ND)), _off_diagonal(_kernel(y_MD, y_MD)), _kernel(x_ND, y_MD)
    within = xx.sum() / (n * (n - 1)) + yy.sum() / (m * (m - 1))
    # Up to the term of the other set alone, which leaving one out here does not change. A row stands twice in xx.
    without_x_N = (xx.sum() - 2 * xx.sum(1)) / ((n - 1) * (n - 2)) - 2 * (xy.sum() - xy.sum(1)) / ((n - 1) * m)
    without_y_M = (yy.sum() - 2 * yy.sum(1)) / ((m - 1) * (m - 2)) - 2 * (xy.sum() - xy.sum(0)) / (n * (m - 1))
    variance = (n - 1) * without_x_N.var() + (m - 1) * without_y_M.var()
    return float(within - 2 * xy.mean()), math.sqrt(variance)


def _kernel(x_ND: np.ndarray, y_MD: np.ndarray) -> np.ndarray:
    return (x_ND @ y_MD.T / x_ND.shape[1] + 1) ** 3


def _off_diagonal(kernel_NN: np.ndarray) -> np.ndarray:
    """The kernel of pairs: a picture with itself is none, and counting it is what would bias the estimate."""
    np.fill_diagonal(kernel_NN, 0.0)
    return kernel_NN


def _moments(features_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and a root R of the covariance, R^T R = C, of min(N, D) rows."""
    features_ND = features_ND.astype(np.float64)
    mean = features_ND.mean(axis=0)
    _, root = np.linalg.qr((features_ND - mean) / math.sqrt(len(features_ND) - 1))
    return mean, root


def _bias(num_pictures: int, num_reference: int, num_features: int) -> str:
    fewest = min(num_pictures, num_reference)
    if fewest > num_features:
        return ""
    return (
        f"FID is biased: {fewest} pictures for {num_features} features, and a covariance of full rank needs more "
        f"than {num_features}; read KID, and compare FID only at the same numbers of pictures"
    )


def _check(features_ND: np.ndarray, reference_MD: np.ndarray) -> None:
    one, two = np.shape(features_ND), np.shape(reference_MD)
    if len(one) != 2 or len(two) != 2 or one[1] != two[1]:
        raise ValueError(f"features must be (N, D) and (M, D) with one D, got {one} and {two}")
    if min(one[0], two[0]) < MIN_PICTURES:
        raise ValueError(f"{one[0]} and {two[0]} pictures; a distribution needs at least {MIN_PICTURES}")
    if not (np.isfinite(features_ND).all() and np.isfinite(reference_MD).all()):
        raise ValueError("some features are not finite; a distance of what is left would be of other pictures")
