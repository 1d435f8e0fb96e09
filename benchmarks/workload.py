"""What throughput.py times: one ticket drawn and one ticket trained on, each in rayalign's way and naively."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable
from typing import cast

import pyarrow as pa
import torch
from naive import Latents, naive_learner, naive_trajectories
from random_sdxl import load_random_sdxl
from torch import Tensor

from rayalign.config import RewardConfig, RunConfig, StepwisePairs
from rayalign.learning.learner import Learner, make_accelerator
from rayalign.models.load import load_model
from rayalign.models.text_to_image import TextToImage
from rayalign.prompts import ANIMALS
from rayalign.records import KEPT, Ticket, derive_seed
from rayalign.rewards.local import LocalScoreFn
from rayalign.rewards.table import build_scorer
from rayalign.sampling.drawn import Drawn
from rayalign.sampling.noise import SampleNoise
from rayalign.sampling.pair_table import pair_table
from rayalign.sampling.sources import draw_ticket

ADAPTERS = ("policy", "reference")
# A pair is the same if its latents differ by less than this share of their largest entry.
SAME_PAIR = {torch.float32: 1e-4, torch.bfloat16: 0.02, torch.float16: 0.005}


def make_config(given: argparse.Namespace) -> RunConfig:
    """The settings of a run with these options; every fourth step is tuned, the noisiest first."""
    path = "toy-sdxl" if given.model == "sdxl-random" else given.model  # the random model has no path
    return RunConfig.model_validate(
        {
            "model": {"path": path, "resolution": given.resolution, "dtype": given.dtype},
            "sampler": {"num_steps": given.steps},
            "pairs": {"kind": "stepwise", "tuned_steps": tuple(range(given.steps, 0, -4))},
            "rewards": [{"scorer": given.reward}],
            "train": {"micro_batch": given.batch, "gradient_checkpointing": given.checkpointing},
        }
    )


class Workload:
    """A model, a scorer in this process, one ticket. Sampling comes first; `start_training` ends it."""

    def __init__(self, given: argparse.Namespace, lora_b_std: float) -> None:
        self.config, device = make_config(given), torch.device(given.device)
        load = load_random_sdxl if given.model == "sdxl-random" else load_model
        self.model: TextToImage = load(self.config, device, ADAPTERS)
        self.num_parameters = sum(parameter.numel() for parameter in self.model.denoiser.parameters())
        _move_away_from_reference(self.model, lora_b_std)
        if self.model.fuses_policy:
            self.model.weights.fuse()
        self.prompts = [ANIMALS[n % len(ANIMALS)] for n in range(given.batch)]
        # Not `asyncio.run`: taking its signal handler back prints the result, tensor by tensor (0.15 s).
        self._loop = asyncio.new_event_loop()
        self.num_pairs = given.batch * len(self.config.pairs.steps_on(given.steps))
        self._score = LocalScoreFn({given.reward: (build_scorer(RewardConfig(scorer=given.reward)), 1.0)})

    def _noise(self) -> SampleNoise:
        seeds = [derive_seed("benchmark", sample) for sample in range(len(self.prompts))]
        return SampleNoise(seeds, self.model.latent_shape, self.model.device)

    @torch.no_grad()
    def denoise_once(self) -> Tensor:
        x = self._noise().draw()
        t = torch.full((len(x),), self.model.kernel.timestep(1), device=x.device)
        return self.model.denoise(x, t, self.model.encode(self.prompts))

    def sample(self) -> Drawn:
        drawn = draw_ticket(self.model, self._score, self.prompts, self._noise(), self.config.pairs)
        return self._loop.run_until_complete(drawn)

    def sample_naively(self) -> list[Latents]:
        pairs = cast(StepwisePairs, self.config.pairs)
        drawn = naive_trajectories(self.model, self._score, self.prompts, self._noise(), pairs)
        return self._loop.run_until_complete(drawn)

    def same_pairs(self) -> float:
        """Share of pairs that both ways agree on: same x_t, same winner, same loser."""
        tolerance, same = SAME_PAIR[self.model.dtype], []
        for ours, naive in zip(self.sample().rows, self.sample_naively(), strict=True):
            close = [_close(ours.latents[name], value, tolerance) for name, value in naive.items()]
            same.append(torch.stack(close).all(0))
        return float(torch.cat(same).float().mean())

    def start_training(self) -> None:
        """Takes the pairs of one more ticket to the learner. All count as kept: who wins decides no cost."""
        drawn = pair_table(self.sample(), Ticket(0, 1), 0, self.config.scorer_names, self.config.pairs.rows)
        status = drawn.schema.get_field_index("status")
        self._table = drawn.set_column(status, "status", pa.array([KEPT] * len(drawn)))
        self._learner = Learner(self.model, self.config, make_accelerator(self.config.train, _kind(self.model)))
        self._naive = naive_learner(self._learner)

    def train(self) -> list[Tensor]:
        return self._backward(self._learner)

    def train_naively(self) -> list[Tensor]:
        return self._backward(self._naive)

    def _backward(self, learner: Learner) -> list[Tensor]:
        """The gradient of a ticket. Without the optimiser's step, which is the same for both, and small for a LoRA."""
        learner.optimizer.zero_grad()
        learner.add_ticket(self._table, last_of_step=True)
        return [parameter.grad for parameter in self.model.weights.parameters("policy")]  # type: ignore[misc]

    def gradient_difference(self) -> float:
        """Euclidean norm of the difference of the two gradients, relative to that of the naive one."""
        ways = self.train, self.train_naively
        ours, naive = (torch.cat([grad.double().flatten() for grad in way()]) for way in ways)
        return float((ours - naive).norm() / naive.norm())

    def count_calls(self, jobs: dict[str, Callable[[], object]], share: int) -> dict[str, dict[str, float]]:
        """Guided denoiser calls of each job by weight set, per `share`."""
        counts = {}
        for name, job in jobs.items():
            self.model.calls.clear()
            job()
            counts[name] = {weights: self.model.calls[weights] / share for weights in ADAPTERS}
        return counts


def _move_away_from_reference(model: TextToImage, std: float) -> None:
    """A policy that is not the reference, so that every term of the loss has a gradient."""
    generator, arrays = torch.Generator().manual_seed(1), model.weights.state("policy")
    drawn = {
        name: torch.randn(value.shape, generator=generator) * std for name, value in arrays.items() if name[-1] == "B"
    }
    model.weights.load("policy", arrays | {name: value.numpy() for name, value in drawn.items()})


def _close(ours: Tensor, other: Tensor, tolerance: float) -> Tensor:
    """bool (B,)."""
    return (ours - other).abs().flatten(1).amax(1) <= tolerance * other.abs().flatten(1).amax(1)


def _kind(model: TextToImage) -> str:
    return "cpu" if model.device.type == "cpu" else "cuda"
