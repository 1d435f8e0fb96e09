from __future__ import annotations

import pytest
import torch

from rayalign.algorithms.timesteps import bin_probabilities, draw_unit, step_weights

# The largest that `torch.rand` answers in float32.
LAST = 1 - 2**-24
# Bins whose float64 probabilities at gamma 0.9 add up to less than 1.
SHORT = 20


def test_three_bins_by_hand() -> None:
    # 1, 0.5, 0.25 over 1.75.
    torch.testing.assert_close(bin_probabilities(3, 0.5), torch.tensor([4, 2, 1], dtype=torch.float64) / 7)


def test_the_papers_fifty_bins() -> None:
    # sum_k 0.9^k = (1 - 0.9^50) / 0.1 = 9.948462; the first 0.1005181, the last 0.9^49 = 0.005726415 of it: 0.0005756
    found = bin_probabilities()
    assert found.shape == (50,)
    assert found.sum().item() == pytest.approx(1, abs=1e-12)
    assert found[0].item() == pytest.approx(0.1005181, abs=1e-7)
    assert found[-1].item() == pytest.approx(0.0005756, abs=1e-7)
    # The noisiest tenth of the schedule gets (1 - 0.9^5) / (1 - 0.9^50) = 0.40951 / 0.9948462 of the draws.
    assert found[:5].sum().item() == pytest.approx(0.4116315, abs=1e-7)


def test_gamma_one_is_uniform() -> None:
    torch.testing.assert_close(bin_probabilities(4, 1.0), torch.full((4,), 0.25, dtype=torch.float64))
    assert step_weights(4, 1.0).tolist() == [1.0] * 4


def test_a_draw_by_hand() -> None:
    # Probabilities 1/2, 1/4, 1/4; bins from the noisy end: [2/3, 1), [1/3, 2/3), [0, 1/3).
    probabilities = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    uniform = torch.tensor([0.0, 0.49, 0.5, 0.74, 0.75, 0.99])
    jitter = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0, 0.5])
    expected = torch.tensor([4.0, 5.0, 2.0, 3.0, 0.0, 1.0]) / 6
    torch.testing.assert_close(draw_unit(uniform, jitter, probabilities), expected)


def test_every_draw_is_inside() -> None:
    edges = torch.tensor([0.0, LAST])
    uniform, jitter = torch.cartesian_prod(edges, edges).T
    for num_bins in (1, 3, 50, 1000):
        found = draw_unit(uniform, jitter, bin_probabilities(num_bins, 0.9))
        assert found.dtype == torch.float32
        assert found.min() >= 0
        assert found.max() < 1


def test_a_sum_one_rounding_short_of_one_still_has_a_last_bin() -> None:
    # The largest float64 below 1 is past the sum of this many probabilities, which must not open a bin of its own.
    probabilities = bin_probabilities(SHORT, 0.9)
    uniform = torch.tensor([1 - 2.0**-53], dtype=torch.float64)
    assert probabilities.cumsum(0)[-1] <= uniform
    # The cleanest bin, [0, 1 / SHORT), at its middle.
    found = draw_unit(uniform, torch.tensor([0.5]), probabilities)
    assert found.item() == pytest.approx(0.5 / SHORT)


def test_draws_follow_the_probabilities() -> None:
    generator = torch.Generator().manual_seed(0)
    num, num_bins = 200_000, 10
    uniform, jitter = torch.rand((2, num), generator=generator)
    probabilities = bin_probabilities(num_bins, 0.7)
    found = draw_unit(uniform, jitter, probabilities)
    counts = torch.histc(found, bins=num_bins, min=0, max=1).double()
    # Four standard errors of a share p are 4 sqrt(p / num), at most 0.0051 here.
    torch.testing.assert_close(counts.flip(0) / num, probabilities, atol=0.0051, rtol=0)
    # Inside a bin it is uniform: mean place 1/2, standard error 0.2887 / sqrt(200000) = 0.00065.
    assert (found * num_bins % 1).mean().item() == pytest.approx(0.5, abs=0.003)


def test_gamma_one_leaves_a_uniform_draw_uniform() -> None:
    uniform, jitter = torch.rand((2, 100_000), generator=torch.Generator().manual_seed(1))
    found = draw_unit(uniform, jitter, bin_probabilities(50, 1.0)).sort().values
    # Kolmogorov-Smirnov: 1.95 / sqrt(100000) = 0.0062 is passed once in a thousand.
    assert (found - torch.linspace(0, 1, 100_000)).abs().max() < 0.0062


def test_step_weights_by_hand() -> None:
    # gamma 0.5: (4, 2, 1) / 7 * 3, mean 1.
    torch.testing.assert_close(step_weights(3, 0.5), torch.tensor([12, 6, 3], dtype=torch.float64) / 7)
    assert step_weights(5).mean().item() == pytest.approx(1, abs=1e-12)
    assert step_weights(1).tolist() == [1.0]


def test_weighing_equals_drawing() -> None:
    """The expected gradient is the same: uniform steps with weights, or skewed steps without."""
    gradient_K = torch.tensor([3.0, -1.0, 0.5, 2.0], dtype=torch.float64)
    weighed = (step_weights(4, 0.8) * gradient_K).mean()
    torch.testing.assert_close(weighed, (bin_probabilities(4, 0.8) * gradient_K).sum(), atol=1e-12, rtol=0)


@pytest.mark.parametrize(("num_bins", "gamma"), [(0, 0.9), (5, 0.0), (5, -0.5), (5, 1.1), (5, float("nan"))])
def test_settings_that_are_no_skew_are_refused(num_bins: int, gamma: float) -> None:
    with pytest.raises(ValueError, match=r"num_bins must|gamma must"):
        bin_probabilities(num_bins, gamma)
    with pytest.raises(ValueError, match=r"num_bins must|gamma must"):
        step_weights(num_bins, gamma)


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match=r"jitter must be \(3,\)"):
        draw_unit(torch.zeros(3), torch.zeros(1), bin_probabilities(2))
    with pytest.raises(ValueError, match=r"probabilities must be \(2,\)"):
        draw_unit(torch.zeros(3), torch.zeros(3), bin_probabilities(2)[None])
