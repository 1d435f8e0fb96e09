from __future__ import annotations

import torch

from rayalign.sampling.noise import SampleNoise

SHAPE = (4, 2, 2)
CPU = torch.device("cpu")


def test_a_sample_draws_the_same_whoever_stands_beside_it() -> None:
    together, alone = SampleNoise([3, 4], SHAPE, CPU), SampleNoise([4], SHAPE, CPU)
    for _ in range(3):
        both = together.draw()
        assert both.shape == (2, *SHAPE)
        assert torch.equal(both[1:], alone.draw())
        assert not torch.equal(both[0], both[1])


def test_draws_are_those_of_one_torch_generator() -> None:
    generator = torch.Generator().manual_seed(9)
    expected = [torch.randn((1, *SHAPE), generator=generator) for _ in range(2)]
    noise = SampleNoise([9], SHAPE, CPU)
    assert all(torch.equal(noise.draw(), value) for value in expected)
