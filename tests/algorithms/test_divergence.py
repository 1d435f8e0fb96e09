from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rayalign.algorithms.divergence import Gate, denoising_divergence, prediction_distance


def test_by_hand() -> None:
    # Noise (1, 0), reference (0, 0): errors (1, 0); initial (0.5, 0.5): (0.25, 0.25). mean(1, 0) - mean(.25, .25) = .25
    # The distance of the two predictions: mean(0.25, 0.25). Second sample, the models swapped: -0.25.
    a, b = torch.tensor([0.0, 0.0]), torch.tensor([0.5, 0.5])
    reference, initial = (torch.stack(rows).reshape(2, 2, 1, 1) for rows in ((a, b), (b, a)))
    target = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1).expand(2, 2, 1, 1)
    assert denoising_divergence(reference, initial, target).tolist() == [0.25, -0.25]
    assert prediction_distance(reference, initial).tolist() == [0.25, 0.25]


def test_the_factored_form_is_the_definition_and_keeps_small_differences() -> None:
    generator = torch.Generator().manual_seed(1)
    target, initial, direction = torch.randn((3, 2, 4, 8, 8), generator=generator, dtype=torch.float64)
    reference = initial + 1e-6 * direction

    def definition(reference: Tensor, initial: Tensor, target: Tensor) -> Tensor:
        return ((target - reference) ** 2 - (target - initial) ** 2).mean((1, 2, 3))

    expected = definition(reference, initial, target)
    torch.testing.assert_close(denoising_divergence(reference, initial, target), expected, atol=1e-14, rtol=0)
    # In float32, where the definition loses a difference of this size in the rounding of the squares.
    reference, initial, target = (one.float() for one in (reference, initial, target))
    exact = definition(reference.double(), initial.double(), target.double())
    factored, plain = (rule(reference, initial, target).double() for rule in (denoising_divergence, definition))
    assert (factored - exact).abs().max() < 1e-4 * exact.abs().min()
    assert (plain - exact).abs().max() > 10 * (factored - exact).abs().max()


def test_why_on_policy_pairs_need_the_distance() -> None:
    """Two exact denoisers, of images N(2, 1) and N(0, 1): on the first's own images K's difference is -distance.

    With x_t = a x0 + s eps, a^2 + s^2 = 1, and x0 ~ N(m, 1), x_t has variance 1 and E[eps | x_t] = s (x_t - a m).
    So the predictions are s a 2 apart everywhere; at a = 0.8, s = 0.6 the distance is 0.96^2 = 0.9216.
    """
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn((2, 1, 1, 400, 400), generator=generator, dtype=torch.float64)
    a, s = 0.8, 0.6

    def found(image_mean: float) -> tuple[float, float]:
        x_t = a * (x0 + image_mean) + s * eps
        reference, initial = s * (x_t - a * 2.0), s * x_t
        divergence = denoising_divergence(reference, initial, eps)
        return divergence.item(), prediction_distance(reference, initial).item()

    # The divergence's standard error: 2 * 0.96 * 0.8 / 400 = 0.004.
    assert found(2.0) == pytest.approx((-0.9216, 0.9216), abs=0.016)
    # On the initial model's own images the two agree: the gate's delta has one unit.
    assert found(0.0) == pytest.approx((0.9216, 0.9216), abs=0.016)


def test_shapes_that_would_broadcast_are_refused() -> None:
    two, one = torch.zeros(2, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match="shapes must be equal"):
        denoising_divergence(two, two, one)
    with pytest.raises(ValueError, match="shapes must be equal"):
        prediction_distance(two, one)


class TestGate:
    @pytest.mark.parametrize(
        ("divergence", "past"),
        [(0.0, False), (-3.0, False), (0.005, False), (0.0050001, True), (math.inf, True), (math.nan, True)],
    )
    def test_decisions(self, divergence: float, past: bool) -> None:
        assert Gate(0.005).decide(divergence) == ("freeze" if past else "copy")
        assert Gate(0.005, "reinit").decide(divergence) == ("reinit" if past else "copy")

    @pytest.mark.parametrize("delta", [0.0, -1.0, math.nan, math.inf])
    def test_a_delta_that_is_no_bound_is_refused(self, delta: float) -> None:
        with pytest.raises(ValueError, match="delta must be above 0"):
            Gate(delta)

    def test_another_mode_is_refused(self) -> None:
        with pytest.raises(ValueError, match="mode must be freeze or reinit"):
            Gate(0.1, "stop")  # type: ignore[arg-type]
