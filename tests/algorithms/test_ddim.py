"""The kernel against diffusers' own scheduler: whoever samples with `DDIMScheduler` samples from our Gaussian."""

from __future__ import annotations

import math

import pytest
import torch
from diffusers import DDIMScheduler

from rayalign.algorithms.ddim import DDIMKernel
from rayalign.algorithms.kernel import log_prob

NUM_STEPS = 20
SHAPE = (2, 4, 3, 3)


def sd_scheduler(spacing: str, prediction: str, alpha_to_one: bool) -> DDIMScheduler:
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=alpha_to_one,
        steps_offset=1,
        timestep_spacing=spacing,
        prediction_type=prediction,
    )
    scheduler.set_timesteps(NUM_STEPS)
    return scheduler


def kernel_of(scheduler: DDIMScheduler, eta: float) -> DDIMKernel:
    return DDIMKernel(
        abar_T=scheduler.alphas_cumprod,
        timesteps=tuple(int(t) for t in scheduler.timesteps),
        final_abar=float(scheduler.final_alpha_cumprod),
        eta=eta,
        prediction_type=scheduler.config.prediction_type,
    )


def at(kernel: DDIMKernel, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.full((2,), kernel.timestep(step)), torch.full((2,), kernel.timestep_prev(step))


@pytest.mark.parametrize("alpha_to_one", [False, True])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_every_step_is_diffusers_step(eta: float, spacing: str, prediction: str, alpha_to_one: bool) -> None:
    scheduler = sd_scheduler(spacing, prediction, alpha_to_one)
    kernel = kernel_of(scheduler, eta)
    generator = torch.Generator().manual_seed(0)
    assert kernel.num_steps == NUM_STEPS
    for step in range(NUM_STEPS, 0, -1):
        x_t, output, noise = (torch.randn(SHAPE, generator=generator) for _ in range(3))
        t, t_prev = at(kernel, step)
        mean, std, x0hat = kernel.transition(output, x_t, t, t_prev)
        # With noise 0 diffusers' sample is the mean.
        theirs = scheduler.step(output, int(t[0]), x_t, eta=eta, variance_noise=torch.zeros(SHAPE))
        torch.testing.assert_close(mean, theirs.prev_sample, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(x0hat, theirs.pred_original_sample, atol=1e-5, rtol=1e-5)
        noisy = scheduler.step(output, int(t[0]), x_t, eta=eta, variance_noise=noise).prev_sample
        torch.testing.assert_close(mean + std.reshape(-1, 1, 1, 1) * noise, noisy, atol=1e-5, rtol=1e-5)
        variance = scheduler._get_variance(int(t[0]), int(t_prev[0]))
        torch.testing.assert_close(std, (eta * variance.clamp(min=0).sqrt()).expand(2), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(kernel.clean_latent(output, x_t, t)[0], x0hat, atol=0, rtol=0)


def test_only_the_last_step_of_alpha_to_one_has_no_noise() -> None:
    with_noise, without = (kernel_of(sd_scheduler("leading", "epsilon", to_one), 1.0) for to_one in (False, True))
    x = torch.zeros(SHAPE)
    for step in range(NUM_STEPS, 0, -1):
        assert (with_noise.transition(x, x, *at(with_noise, step)).std > 0).all()
        assert (without.transition(x, x, *at(without, step)).std > 0).all() == (step > 1)


def test_a_step_by_hand() -> None:
    # abar_t = 0.36, abar_prev = 0.64, eps = 1, x_t = 2, eta = 0.5:
    # x0hat = (2 - 0.8) / 0.6 = 2;  variance = 0.36/0.64 (1 - 0.36/0.64) = 0.5625 * 0.4375 = 0.24609375
    # std = 0.5 * 0.4960784 = 0.2480392;  mean = 0.8 * 2 + sqrt(0.36 - 0.06152344) = 1.6 + 0.5463301
    kernel = DDIMKernel(torch.tensor([0.9, 0.64, 0.5, 0.36]), (3, 1), 0.9, 0.5, "epsilon")
    one = torch.ones(1, 1, 1, 1)
    mean, std, x0hat = kernel.transition(one, 2 * one, torch.tensor([3]), torch.tensor([1]))
    assert [x0hat.item(), std.item(), mean.item()] == pytest.approx([2.0, 0.2480392, 2.1463301], abs=1e-6)
    assert (kernel.timestep(2), kernel.timestep_prev(2)) == (3, 1)
    assert (kernel.timestep(1), kernel.timestep_prev(1)) == (1, -1)


def test_timesteps_may_differ_within_a_batch() -> None:
    kernel = kernel_of(sd_scheduler("leading", "epsilon", False), 1.0)
    x, output = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    t, t_prev = torch.tensor([951, 1]), torch.tensor([901, -49])
    both = kernel.transition(output, x, t, t_prev)
    for row in range(2):
        pick = slice(row, row + 1)
        alone = kernel.transition(output[pick], x[pick], t[pick], t_prev[pick])
        for whole, part in zip(both, alone, strict=True):
            torch.testing.assert_close(whole[pick], part, atol=1e-6, rtol=1e-6)


def test_log_prob_is_the_mean_of_normals() -> None:
    generator = torch.Generator().manual_seed(2)
    x, mean = (torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in range(2))
    std = torch.tensor([0.1, 2.0], dtype=torch.float64)
    normal = torch.distributions.Normal(mean, std.reshape(-1, 1, 1, 1))
    expected = normal.log_prob(x).flatten(1).mean(1)
    torch.testing.assert_close(log_prob(x, mean, std), expected, atol=1e-12, rtol=0)
    # At the mean of a unit Gaussian: -log(2 pi) / 2.
    at_mean = log_prob(mean, mean, torch.ones(2, dtype=torch.float64))
    assert at_mean.tolist() == pytest.approx([-math.log(2 * math.pi) / 2] * 2)


def test_shapes_that_would_broadcast_are_refused() -> None:
    kernel = kernel_of(sd_scheduler("leading", "epsilon", False), 1.0)
    x, t = torch.zeros(SHAPE), torch.tensor([951, 951])
    with pytest.raises(ValueError, match=r"prediction \(1, 4, 3, 3\), x_t \(2, 4, 3, 3\)"):
        kernel.transition(x[:1], x, t, t)
    with pytest.raises(ValueError, match=r"t must be \(2,\), got \(1,\)"):
        kernel.clean_latent(x, x, t[:1])
    with pytest.raises(ValueError, match=r"t_prev must be \(2,\), got \(\)"):
        kernel.transition(x, x, t, torch.tensor(901))
    with pytest.raises(ValueError, match="x_prev"):
        log_prob(x, x[:, :1], torch.ones(2))
    with pytest.raises(ValueError, match=r"std must be \(2,\)"):
        log_prob(x, x, torch.ones(2, 1))
