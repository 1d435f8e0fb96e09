"""The online pair sources, by name: `pairs.kind` -> how a ticket is drawn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from rayalign.config import SamplePairs, StepwisePairs
from rayalign.models.text_to_image import TextToImage
from rayalign.rewards.protocol import ScoreFn
from rayalign.sampling.drawn import Drawn
from rayalign.sampling.noise import SampleNoise
from rayalign.sampling.stepwise import StepwiseSampler
from rayalign.sampling.whole import draw_final_pairs, draw_samples, draw_trajectory_pairs


async def draw_stepwise(
    model: TextToImage, score: ScoreFn, prompts: list[str], noise: SampleNoise, pairs: StepwisePairs, annotated: bool
) -> Drawn:
    return await StepwiseSampler(model, score, prompts, noise, pairs, annotated).draw()


# (model, score, prompts, noise, pairs, annotated) -> Drawn. `annotated`: rows carry the clean latents to embed.
SOURCES: dict[str, Callable[..., Awaitable[Drawn]]] = {
    "stepwise": draw_stepwise,
    "trajectory": draw_trajectory_pairs,
    "final": draw_final_pairs,
    "sample": draw_samples,
}


async def draw_ticket(
    model: TextToImage, score: ScoreFn, prompts: list[str], noise: SampleNoise, pairs: Any, annotated: bool = False
) -> Drawn:
    """One ticket's rows. `prompts` has one for each distinct prompt that `num_prompts` asks for."""
    repeated = [prompt for prompt in prompts for _ in range(_repeats(pairs))]
    return await SOURCES[pairs.kind](model, score, repeated, noise, pairs, annotated)


def num_prompts(pairs: Any, samples: int) -> int:
    """How many prompts a ticket of `samples` samples takes."""
    return samples // _repeats(pairs)


def _repeats(pairs: Any) -> int:
    return pairs.group if isinstance(pairs, SamplePairs) else 1
