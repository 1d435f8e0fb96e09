from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from rayalign.algorithms.kernel import Kernel
from rayalign.config import EarlyTimesteps, ListedTimesteps, SamplerConfig, Timesteps, UniformTimesteps
from rayalign.learning.noising import Key, draw_noise, draw_timesteps, weights_by_step
from rayalign.models.kernels import make_kernel

CPU = torch.device("cpu")
KERNELS: dict[str, Kernel] = {
    "ddim": make_kernel("ddim", DDIMScheduler(), SamplerConfig()),
    "flow": make_kernel("flow", FlowMatchEulerDiscreteScheduler(shift=3.0), SamplerConfig()),
}
MANY = 6000
LATENTS = torch.zeros(3, 4, 8, 8)


def keys_of(count: int) -> list[Key]:
    return [(number // 100, number // 10 % 10, number % 10) for number in range(count)]


def timesteps(config: Timesteps, kernel: str = "ddim", count: int = MANY, seed: int = 0, draw: int = 0) -> torch.Tensor:
    return draw_timesteps(seed, keys_of(count), draw, config, KERNELS[kernel], CPU)


def assert_shares(counts: list[int], shares: list[float]) -> None:
    """Each count within five standard deviations of what its share of all draws is."""
    total = sum(counts)
    for count, share in zip(counts, shares, strict=True):
        assert abs(count - share * total) < 5 * math.sqrt(total * share * (1 - share)), (counts, shares)


def tenths(drawn: torch.Tensor, kernel: str) -> list[int]:
    unit = KERNELS[kernel].to_unit(drawn)
    return torch.bincount((unit * 10).long(), minlength=10).tolist()


@pytest.mark.parametrize("kernel", KERNELS)
def test_uniform_timesteps_fill_the_schedule_evenly(kernel: str) -> None:
    drawn = timesteps(UniformTimesteps(), kernel)
    assert_shares(tenths(drawn, kernel), [0.1] * 10)
    assert drawn.min() >= 0
    assert drawn.max() < 1000
    assert drawn.dtype == (torch.int64 if kernel == "ddim" else torch.float32)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("gamma", "bins"), [(0.9, 50), (0.5, 10), (1.0, 50)])
def test_early_timesteps_come_as_often_as_gamma_says(kernel: str, gamma: float, bins: int) -> None:
    drawn = timesteps(EarlyTimesteps(gamma=gamma, bins=bins), kernel)
    weights = [gamma**k for k in range(bins)]  # the noisiest bin first
    each = bins // 10
    shares = [sum(weights[(9 - tenth) * each : (10 - tenth) * each]) / sum(weights) for tenth in range(10)]
    assert sum(shares) == pytest.approx(1)
    assert_shares(tenths(drawn, kernel), shares)


def test_a_bin_is_jittered() -> None:
    """Of one bin over the whole schedule nothing is left but the jitter, which is uniform."""
    assert_shares(tenths(timesteps(EarlyTimesteps(bins=1)), "ddim"), [0.1] * 10)


@pytest.mark.parametrize(("kernel", "values"), [("ddim", (999.0, 500.0, 1.0)), ("flow", (1000.0, 437.5, 8.9))])
def test_listed_timesteps_are_those_listed_equally_often(kernel: str, values: tuple[float, ...]) -> None:
    drawn = Counter(round(value, 4) for value in timesteps(ListedTimesteps(values=values), kernel).tolist())
    assert set(drawn) == set(values)
    assert_shares([drawn[value] for value in values], [1 / 3] * 3)


def test_a_draw_is_its_keys_whoever_stands_beside_it() -> None:
    early = EarlyTimesteps()
    together = timesteps(early, count=40)
    for chosen in ([0], [17, 3], [39]):
        keys = [keys_of(40)[row] for row in chosen]
        assert torch.equal(draw_timesteps(0, keys, 0, early, KERNELS["ddim"], CPU), together[chosen])
    keys = [(1, 2, 3), (1, 2, 4), (1, 2, 3)]
    noise = draw_noise(0, keys, 0, LATENTS)
    assert torch.equal(noise[0], noise[2])
    assert torch.equal(draw_noise(0, keys[1:2], 0, LATENTS[:1]), noise[1:2])


def test_another_seed_iteration_slot_sample_or_draw_is_another_draw() -> None:
    uniform = UniformTimesteps()
    base, others = (0, (1, 2, 3), 0), [(1, (1, 2, 3), 0), (0, (0, 2, 3), 0), (0, (1, 0, 3), 0), (0, (1, 2, 0), 0)]
    noises, times = [], []
    for seed, key, draw in [base, *others, (0, (1, 2, 3), 1)]:
        noises.append(draw_noise(seed, [key], draw, LATENTS[:1]).flatten()[0].item())
        times.append(draw_timesteps(seed, [key], draw, uniform, KERNELS["flow"], CPU).item())
    assert len(set(noises)) == len(noises)
    assert len(set(times)) == len(times)


def test_one_key_is_one_timestep() -> None:
    """What is set against each other is given one key, hence one timestep."""
    drawn = draw_timesteps(0, [(1, 2, -1)] * 5, 0, UniformTimesteps(), KERNELS["flow"], CPU)
    assert len(set(drawn.tolist())) == 1


def test_noise_is_standard_normal() -> None:
    noise = draw_noise(3, keys_of(300), 0, torch.zeros(300, 4, 8, 8))
    assert noise.shape == (300, 4, 8, 8)
    # 76,800 numbers: the mean's deviation is 1 / 277, that of the mean square sqrt(2) / 277; five of each.
    assert abs(noise.mean()) < 5 / 277
    assert abs(noise.square().mean() - 1) < 5 * math.sqrt(2) / 277
    # Rows are drawn apart: their correlation is that of 256 numbers.
    rows = noise.flatten(1)[:50]
    correlation = rows @ rows.T / 256 - torch.eye(50)
    assert correlation.fill_diagonal_(0).abs().max() < 6 / 16


def test_steps_weigh_by_hand() -> None:
    assert weights_by_step(UniformTimesteps(), (2, 19, 10)) == {19: 1.0, 10: 1.0, 2: 1.0}
    # 1, 1/2, 1/4 from the noisiest on, times 3 / 1.75.
    found = weights_by_step(EarlyTimesteps(gamma=0.5, bins=7), (2, 19, 10))
    assert list(found) == [19, 10, 2]
    assert list(found.values()) == pytest.approx([12 / 7, 6 / 7, 3 / 7])
    assert weights_by_step(EarlyTimesteps(), (5,)) == {5: 1.0}
