from __future__ import annotations

import math

import pytest
import torch

from rayalign.algorithms.ddim import DDIMKernel
from rayalign.algorithms.reward_scale import snr_scale


def sd_kernel() -> DDIMKernel:
    """SD 1.5's and SDXL's training schedule."""
    beta_T = torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    abar_T = (1 - beta_T).cumprod(0)
    return DDIMKernel(abar_T, (999,), float(abar_T[0]), 1.0, "epsilon")


def test_sd_schedule_has_the_papers_values() -> None:
    kernel = sd_kernel()
    found = snr_scale(kernel.snr(torch.tensor([0, 500, 900, 999])), kernel.snr_range())
    torch.testing.assert_close(found, torch.tensor([1.0, 1.109, 1.570, 2.0]), atol=5e-4, rtol=0)


def test_it_rises_with_the_noise() -> None:
    kernel = sd_kernel()
    found = snr_scale(kernel.snr(torch.arange(1000)), kernel.snr_range())
    assert (found.diff() > 0).all()


def test_by_hand() -> None:
    # 1 / sqrt(SNR): range (4, 1/16) -> 1/2 .. 4. SNR 1 -> 1: 1 + 0.5 / 3.5; SNR 1/4 -> 2: 1 + 1.5 / 3.5.
    found = snr_scale(torch.tensor([4.0, 1.0, 0.25, 0.0625]), (0.0625, 4.0))
    torch.testing.assert_close(found, torch.tensor([1.0, 1 + 1 / 7, 1 + 3 / 7, 2.0]))


def test_a_rectified_flow() -> None:
    # SNR = ((1 - t) / t)^2, so 1 / sqrt(SNR) = t / (1 - t): 1/3 at t = 1/4, 1 at 1/2, 3 at 3/4; range 1/3 .. 3.
    t = torch.tensor([0.25, 0.5, 0.75])
    found = snr_scale(((1 - t) / t) ** 2, (1 / 9, 9.0))
    torch.testing.assert_close(found, torch.tensor([1.0, 1.25, 2.0]))


def test_outside_the_schedule_is_its_end() -> None:
    # As at t = 1 of a rectified flow (SNR 0), where 1 / sqrt(SNR) is infinite.
    assert snr_scale(torch.tensor([0.0, 1e9]), (0.01, 100.0)).tolist() == [2.0, 1.0]


@pytest.mark.parametrize("snr_range", [(0.0, 1.0), (2.0, 1.0), (1.0, 1.0), (1.0, math.inf), (math.nan, 1.0)])
def test_a_range_that_is_none_is_refused(snr_range: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="snr_range must be"):
        snr_scale(torch.ones(1), snr_range)


def test_other_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match=r"snr must be \(2,\)"):
        snr_scale(torch.ones(2, 1), (0.1, 1.0))
