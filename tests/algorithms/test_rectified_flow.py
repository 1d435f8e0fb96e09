"""The kernel against diffusers' own scheduler, against a step by hand, and against a flow whose marginals are known."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from rayalign.algorithms.rectified_flow import RectifiedFlowKernel

NUM_STEPS = 20
SHAPE = (2, 4, 3, 3)
MEAN, STD = 1.5, 0.5  # of the data whose flow is known


def sd3_scheduler(shift: float, num_steps: int = NUM_STEPS) -> FlowMatchEulerDiscreteScheduler:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(num_steps)
    return scheduler


def kernel_of(shift: float, noise_scale: float, num_steps: int = NUM_STEPS) -> RectifiedFlowKernel:
    return RectifiedFlowKernel(tuple(sd3_scheduler(shift, num_steps).sigmas.tolist()), noise_scale)


def at(kernel: RectifiedFlowKernel, step: int) -> tuple[Tensor, Tensor]:
    return torch.full((2,), kernel.timestep(step)), torch.full((2,), kernel.timestep_prev(step))


@pytest.mark.parametrize("shift", [1.0, 3.0, 6.5])
def test_without_noise_every_step_is_diffusers_step(shift: float) -> None:
    scheduler, kernel = sd3_scheduler(shift), kernel_of(shift, 0.0)
    generator = torch.Generator().manual_seed(0)
    assert kernel.num_steps == NUM_STEPS
    for step, theirs in zip(range(NUM_STEPS, 0, -1), scheduler.timesteps, strict=True):
        x_t, velocity = (torch.randn(SHAPE, generator=generator) for _ in range(2))
        t, t_prev = at(kernel, step)
        assert torch.equal(kernel.as_timesteps(t.double()), theirs.expand(2))
        mean, std, _ = kernel.transition(velocity, x_t, t, t_prev)
        torch.testing.assert_close(mean, scheduler.step(velocity, theirs, x_t).prev_sample, atol=1e-5, rtol=1e-5)
        assert std.tolist() == [0, 0]


def test_a_step_by_hand() -> None:
    # t = 0.5, t_prev = 0.3, a = 0.6, x = 2, v = 1: spread^2 = 0.36 * 0.5 / 0.5 = 0.36, dt = -0.2
    # x0hat = 2 - 0.5 = 1.5;  noise = 2 + 0.5 = 2.5
    # mean = 2 + [1 + 0.36 / 1 * 2.5] (-0.2) = 2 - 0.38 = 1.62;  std = sqrt(0.36 * 0.2) = 0.2683282
    kernel = RectifiedFlowKernel((1.0, 0.5, 0.3, 0.0), 0.6)
    one = torch.ones(1, 1, 1, 1)
    mean, std, x0hat = kernel.transition(one, 2 * one, torch.tensor([500.0]), torch.tensor([300.0]))
    assert [x0hat.item(), mean.item(), std.item()] == pytest.approx([1.5, 1.62, 0.2683282], abs=1e-6)
    assert kernel.clean_latent(one, 2 * one, torch.tensor([500.0]))[1].item() == pytest.approx(2.5)
    assert [kernel.timestep(step) for step in (3, 2, 1)] == pytest.approx([1000, 500, 300])
    assert [kernel.timestep_prev(step) for step in (3, 2, 1)] == pytest.approx([500, 300, 0])


def test_pure_noise_takes_the_next_grid_value_under_the_root() -> None:
    # t = 1, t_prev = 0.5, a = 0.6, x = 2, v = 1: spread^2 = 0.36 / (1 - 0.5) = 0.72, dt = -0.5, noise = x = 2
    # mean = 2 + [1 + 0.36 * 2] (-0.5) = 1.14;  std = sqrt(0.72 * 0.5) = 0.6
    kernel = RectifiedFlowKernel((1.0, 0.5, 0.3, 0.0), 0.6)
    one = torch.ones(1, 1, 1, 1)
    for timestep in (1000.0, 999.9999):  # a shift rounds
        mean, std, x0hat = kernel.transition(one, 2 * one, torch.tensor([timestep]), torch.tensor([500.0]))
        assert [x0hat.item(), mean.item(), std.item()] == pytest.approx([1, 1.14, 0.6], abs=1e-5)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_only_the_last_step_has_no_noise(shift: float) -> None:
    kernel = kernel_of(shift, 0.7)
    x, velocity = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    for step in range(NUM_STEPS, 0, -1):
        mean, std, x0hat = kernel.transition(velocity, x, *at(kernel, step))
        assert torch.isfinite(mean).all()
        assert torch.isfinite(std).all()
        assert (std > 0).all() == (step > 1)
        if step == 1:
            torch.testing.assert_close(mean, x0hat, atol=1e-6, rtol=0)


def known_velocity(x: Tensor, t: float) -> Tensor:
    """E[noise - x0 | x_t = x] for x0 ~ N(MEAN, STD^2): both are jointly Gaussian with x_t = (1 - t) x0 + t noise."""
    centred = x - (1 - t) * MEAN
    variance = ((1 - t) * STD) ** 2 + t**2
    return (t - (1 - t) * STD**2) / variance * centred - MEAN


def moments(kernel: RectifiedFlowKernel) -> list[tuple[float, float]]:
    """Mean and variance of the samples after each step, exactly.

    The velocity is linear in x, so a step's mean is slope x + offset, Gaussians stay Gaussian, and two points tell all.
    """
    mean, variance, found = 0.0, 1.0, []
    for step in range(kernel.num_steps, 0, -1):
        points = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)
        velocity = known_velocity(points, kernel.timestep(step) / 1000)
        means, stds, _ = kernel.transition(velocity, points, *at(kernel, step))
        offset, there = means.flatten().tolist()
        slope = there - offset
        mean, variance = slope * mean + offset, slope**2 * variance + stds[0].item() ** 2
        found.append((mean, variance))
    return found


@pytest.mark.parametrize("noise_scale", [0.0, 0.7])
@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_marginals_are_kept_as_steps_grow(shift: float, noise_scale: float) -> None:
    gaps = []
    for num_steps in (10, 50, 250):
        mean, variance = moments(kernel_of(shift, noise_scale, num_steps))[-1]
        assert mean == pytest.approx(MEAN, abs=1e-3)
        gaps.append(abs(math.sqrt(variance) - STD))
        print(f"shift {shift} a {noise_scale} steps {num_steps}: mean {mean:.4f}, std {math.sqrt(variance):.4f}")
    assert gaps[0] > 2 * gaps[1]
    assert gaps[1] > gaps[2]
    assert gaps[2] < 0.006


def test_the_marginals_are_kept_on_the_way_too() -> None:
    """The first steps, where the spread is cut off, overshoot on any grid (the first by a^4 / 4); later ones heal."""
    kernel = kernel_of(3.0, 0.7, 250)
    for sigma, (mean, variance) in zip(kernel.sigmas[1:], moments(kernel), strict=True):
        assert mean == pytest.approx((1 - sigma) * MEAN, abs=2e-3)
        exact = ((1 - sigma) * STD) ** 2 + sigma**2
        assert variance == pytest.approx(exact, rel=0.1 if sigma > 0.9 else 0.026)


def test_samples_have_the_moments_of_the_recursion() -> None:
    """The recursion above, against drawing: it shares no code with it but the kernel."""
    kernel = kernel_of(3.0, 0.7)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 1, 200, 200, generator=generator)
    for step in range(NUM_STEPS, 0, -1):
        mean, std, _ = kernel.transition(known_velocity(x, kernel.timestep(step) / 1000), x, *at(kernel, step))
        x = mean + std.reshape(-1, 1, 1, 1) * torch.randn(x.shape, generator=generator)
    expected, variance = moments(kernel)[-1]
    # 80,000 draws: the standard errors are std / 283 = 0.0016 and 0.005 of the variance; four of each.
    assert x.mean().item() == pytest.approx(expected, abs=0.007)
    assert x.var().item() == pytest.approx(variance, rel=0.02)


def test_timesteps_may_differ_within_a_batch() -> None:
    kernel = kernel_of(3.0, 0.7)
    x, velocity = torch.randn(2, 3, *SHAPE[1:], generator=torch.Generator().manual_seed(3))
    t, t_prev = (torch.tensor([f(step) for step in (20, 9, 1)]) for f in (kernel.timestep, kernel.timestep_prev))
    whole = kernel.transition(velocity, x, t, t_prev)
    for row in range(3):
        pick = slice(row, row + 1)
        alone = kernel.transition(velocity[pick], x[pick], t[pick], t_prev[pick])
        for together, part in zip(whole, alone, strict=True):
            torch.testing.assert_close(together[pick], part, atol=1e-6, rtol=1e-6)


def test_noising_and_its_target_undo_each_other() -> None:
    kernel = kernel_of(3.0, 0.7)
    x0, noise = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(4))
    t = torch.tensor([1000.0, 250.0])
    x_t = kernel.add_noise(x0, noise, t)
    torch.testing.assert_close(x_t[0], noise[0])
    torch.testing.assert_close(x_t[1], 0.75 * x0[1] + 0.25 * noise[1])
    found = kernel.clean_latent(kernel.target(x0, noise, t), x_t, t)
    for got, expected in zip(found, (x0, noise), strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    scheduler = sd3_scheduler(3.0)
    theirs = scheduler.scale_noise(x0, scheduler.timesteps[[0, 12]], noise)
    torch.testing.assert_close(kernel.add_noise(x0, noise, scheduler.timesteps[[0, 12]]), theirs)


def test_signal_to_noise_by_hand_and_at_the_ends() -> None:
    # ((1 - t) / t)^2: 1 at 0.5, 1/9 at 0.75; the ends count as 0.999 and 0.001, where it is 1 / 999^2 and 999^2.
    kernel = kernel_of(3.0, 0.7)
    snr = kernel.snr(torch.tensor([500.0, 750.0, 1000.0, 0.0]))
    assert snr.tolist() == pytest.approx([1, 1 / 9, 999.0**-2, 999.0**2], rel=1e-4)
    assert kernel.snr_range() == pytest.approx((999.0**-2, 999.0**2), rel=1e-4)


def test_unit_is_uniform_in_sigma() -> None:
    kernel = kernel_of(3.0, 0.7)
    u = torch.tensor([0.0, 0.25, 0.999])
    assert kernel.from_unit(u).tolist() == pytest.approx([0, 250, 999])
    torch.testing.assert_close(kernel.to_unit(kernel.from_unit(u)), u)
    assert kernel.to_unit(torch.tensor([1000.0])).item() < 1


@pytest.mark.parametrize("sigmas", [(0.0,), (1.0, 0.5), (1.0, 0.5, 0.5, 0.0), (0.0, 0.5, 1.0), (1000.0, 500.0, 0.0)])
def test_a_grid_that_is_none_is_refused(sigmas: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="sigmas must fall from at most 1 to a final 0"):
        RectifiedFlowKernel(sigmas)


def test_shapes_that_would_broadcast_are_refused() -> None:
    kernel, x, t = kernel_of(3.0, 0.7), torch.zeros(SHAPE), torch.tensor([900.0, 900.0])
    with pytest.raises(ValueError, match=r"prediction \(1, 4, 3, 3\), x_t \(2, 4, 3, 3\)"):
        kernel.transition(x[:1], x, t, t)
    with pytest.raises(ValueError, match=r"t must be \(2,\), got \(1,\)"):
        kernel.clean_latent(x, x, t[:1])
    with pytest.raises(ValueError, match=r"t_prev must be \(2,\), got \(\)"):
        kernel.transition(x, x, t, torch.tensor(800.0))
    with pytest.raises(ValueError, match=r"t must be \(2,\), got \(1,\)"):
        kernel.add_noise(x, x, t[:1])
    for noised in (kernel.add_noise, kernel.target):
        with pytest.raises(ValueError, match=r"x0 \(1, 4, 3, 3\), noise \(2, 4, 3, 3\)"):
            noised(x[:1], x, t)
