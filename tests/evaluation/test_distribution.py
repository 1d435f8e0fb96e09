import warnings

import numpy as np
import pytest

from rayalign.evaluation.distribution import (
    BiasedDistanceWarning,
    distribution_distance,
    frechet_distance,
    kernel_distance,
)


def normal(n, dim, seed, mean=0.0, scale=1.0):
    return mean + scale * np.random.default_rng(seed).standard_normal((n, dim))


def test_fid_by_hand():
    # One feature. Means 1 and 4; variances (1 + 0 + 1)/2 = 1 and (4 + 0 + 4)/2 = 4.
    # (1 - 4)^2 + (sqrt 1 - sqrt 4)^2 = 9 + 1.
    assert frechet_distance(np.array([[0.0], [1], [2]]), np.array([[2.0], [4], [6]])) == pytest.approx(10.0)


def test_fid_equals_the_formula_read_literally():
    """tr (C_1 C_2)^(1/2) is the sum of the roots of the product's eigenvalues, here by a solver for any matrix."""
    mix = np.random.default_rng(2).standard_normal((6, 6))
    one, two = normal(400, 6, 0) @ mix, normal(300, 6, 1, mean=0.5)
    cov_one, cov_two = np.cov(one, rowvar=False), np.cov(two, rowvar=False)
    roots = np.sqrt(np.linalg.eigvals(cov_one @ cov_two).real).sum()
    expected = ((one.mean(0) - two.mean(0)) ** 2).sum() + np.trace(cov_one) + np.trace(cov_two) - 2 * roots
    assert expected > 1.0
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-10)


def test_fid_of_a_singular_covariance():
    """Ten features of which four are copies: C_1 C_2 has eigenvalues of zero, and roots of rounding errors."""
    one, two = normal(200, 6, 0), normal(200, 6, 1, mean=1.0)
    spread = np.concatenate([np.eye(6), np.eye(6)[:, :4]], axis=1)
    # A feature that stands twice counts twice: the same as features scaled by sqrt 2.
    scale = np.array([2**0.5] * 4 + [1.0] * 2)
    assert frechet_distance(one @ spread, two @ spread) == pytest.approx(frechet_distance(one * scale, two * scale))


def test_fid_does_not_change_under_what_keeps_distances():
    one, two = normal(60, 5, 0), normal(50, 5, 1, mean=0.7, scale=2.0)
    turn, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((5, 5)))
    same = frechet_distance(one, two)
    assert frechet_distance(two, one) == pytest.approx(same)
    assert frechet_distance(one @ turn + 9, two @ turn + 9) == pytest.approx(same)
    assert frechet_distance(one[::-1], two) == pytest.approx(same)
    assert frechet_distance(3 * one, 3 * two) == pytest.approx(9 * same)  # a squared distance
    assert frechet_distance(one, one[::-1]) == pytest.approx(0.0, abs=1e-10)


def test_fid_is_biased_in_the_number_of_pictures_and_kid_is_not():
    """Both sets of one distribution, so that the truth is 0 for both."""
    fid, kid = {}, {}
    for n in (20, 80, 320):
        pairs = [(normal(n, 8, 2 * trial), normal(n, 8, 2 * trial + 1)) for trial in range(60)]
        fid[n] = np.mean([frechet_distance(*pair) for pair in pairs])
        estimates = [kernel_distance(*pair).mean for pair in pairs]
        kid[n] = abs(np.mean(estimates)) / (np.std(estimates) / 60**0.5)  # in standard errors of the mean
    assert fid[20] > 3 * fid[80] > 9 * fid[320] > 0.1
    assert max(kid.values()) < 3


def test_too_few_pictures_for_fid_are_called_out():
    with pytest.warns(BiasedDistanceWarning, match="8 pictures for 8 features"):
        frechet_distance(normal(8, 8, 0), normal(50, 8, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet_distance(normal(9, 8, 0), normal(50, 8, 1))
        found = distribution_distance(normal(8, 8, 0), normal(50, 8, 1), "clip test")  # says it in the record
    assert "8 pictures for 8 features" in found.fid_note
    assert distribution_distance(normal(9, 8, 0), normal(50, 8, 1), "clip test").fid_note == ""


def test_kid_by_hand():
    # One feature, k(a, b) = (ab + 1)^3. x = 0, 1, 2: pairs 1, 1 and (2 + 1)^3 = 27, each twice, of 6: 58/6 = 29/3.
    # y = 1, 1, 1: all pairs 8. Between: rows of x give 1, 8, 27, mean 12. 29/3 + 8 - 24 = -19/3.
    found = kernel_distance(np.array([[0.0], [1], [2]]), np.ones((3, 1)))
    assert found.mean == pytest.approx(-19 / 3)
    assert (found.num_subsets, found.subset_size) == (1, 3)


def test_kid_equals_loops_over_pairs():
    one, two = normal(7, 3, 0), normal(5, 3, 1, mean=1.0)

    def estimate(x, y):
        def k(a, b):
            return (sum(p * q for p, q in zip(a, b, strict=True)) / 3 + 1) ** 3

        def within(z):
            return np.mean([k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j])

        return within(x) + within(y) - 2 * np.mean([k(a, b) for a in x for b in y])

    found = kernel_distance(one, two)
    assert found.mean == pytest.approx(estimate(one, two), rel=1e-12)
    left_one = [estimate(np.delete(one, i, axis=0), two) for i in range(7)]
    left_two = [estimate(one, np.delete(two, i, axis=0)) for i in range(5)]
    variance = 6 * np.var(left_one) + 4 * np.var(left_two)
    assert found.std == pytest.approx(variance**0.5, rel=1e-12)


def test_the_deviation_is_that_of_an_estimate():
    """Of 300 pairs of samples: what the jackknife says of one, on average, is how much they differ."""
    found = [kernel_distance(normal(30, 4, 2 * t), normal(30, 4, 2 * t + 1, mean=0.8)) for t in range(300)]
    actual = np.std([distance.mean for distance in found])
    assert np.mean([distance.std for distance in found]) == pytest.approx(actual, rel=0.2)


def test_subsets_where_a_set_is_large():
    one, two = normal(300, 4, 0), normal(250, 4, 1, mean=0.8)
    whole = kernel_distance(one, two)
    parts = kernel_distance(one, two, num_subsets=200, subset_size=100, seed=5)
    assert (parts.num_subsets, parts.subset_size) == (200, 100)
    assert parts.mean == pytest.approx(whole.mean, abs=4 * parts.std / 200**0.5)
    assert parts.std > whole.std  # fewer pictures an estimate
    assert parts == kernel_distance(one, two, num_subsets=200, subset_size=100, seed=5)
    assert parts.mean != kernel_distance(one, two, num_subsets=200, subset_size=100, seed=6).mean
    assert kernel_distance(one, two[:40], num_subsets=3, subset_size=100).subset_size == 40


def test_the_record_says_what_it_was_made_with():
    one, two = normal(20, 3, 0), normal(15, 3, 1)
    found = distribution_distance(one, two, "toy-clip").to_json()
    kid = kernel_distance(one, two)
    assert found == {
        "extractor": "toy-clip",
        "num_pictures": 20,
        "num_reference": 15,
        "num_features": 3,
        "fid": frechet_distance(one, two),
        "fid_note": "",
        "kid": {"mean": kid.mean, "std": kid.std, "num_subsets": 1, "subset_size": 15},
    }


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
@pytest.mark.parametrize(
    ("one", "two", "message"),
    [
        (np.ones((5, 2)), np.ones((5, 3)), "with one D"),
        (np.ones(5), np.ones((5, 3)), "with one D"),
        (np.ones((2, 3)), np.ones((5, 3)), "2 and 5 pictures"),
        (np.full((5, 3), np.nan), np.ones((5, 3)), "not finite"),
    ],
)
def test_refuses(distance, one, two, message):
    with pytest.raises(ValueError, match=message):
        distance(one, two)


def test_float32_features_are_computed_in_float64():
    # x.y / D near 1e4: its cube in float32 has steps of about 6e4, more than the distance.
    one, two = (100 + normal(50, 4, seed).astype(np.float32) for seed in (0, 1))
    assert kernel_distance(one, two) == kernel_distance(one.astype(np.float64), two.astype(np.float64))
