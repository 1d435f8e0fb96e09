"""Step-wise preference pairs: at tuned steps, candidates branch from one x_t, are scored, and the winner goes on.

TailorPO, arXiv 2502.01667, section 3.2 (numbers below are those of methods.md's walk through it). A candidate is
scored through the clean image predicted *from it*: one denoiser call at the next timestep, then the VAE, then the
reward. That call is also the next step's denoising call for whichever candidate wins, so 20 steps with 5 tuned and
K = 2 cost 25 calls, not 30.

Shape letters: B samples, K candidates, S tuned steps, C H W latent channels, height, width.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rayalign.algorithms.pairing import Pairing, best_against_worst
from rayalign.config import SamplerConfig
from rayalign.models.conditioning import Conditioning
from rayalign.models.text_to_image import TextToImage
from rayalign.records import Scores
from rayalign.rewards.protocol import ScoreFn
from rayalign.sampling.noise import SampleNoise


@dataclass(frozen=True)
class StepPairs:
    """The B pairs drawn at one tuned step. Latents are float32 on the CPU; rewards are the combined ones."""

    step: int
    timestep: int
    timestep_prev: int
    x_t: Tensor  # (B, C, H, W)
    winner: Tensor  # (B, C, H, W)
    loser: Tensor  # (B, C, H, W)
    pairing: Pairing
    scores_BK: list[Scores]  # one per candidate


@dataclass(frozen=True)
class Trajectories:
    """B whole trajectories: their pairs, noisiest step first, and what the finished images scored."""

    prompts: list[str]
    pairs: list[StepPairs]
    final: Scores
    denoiser_calls: int  # per trajectory
    denoising_s: float  # wall time, scoring apart
    scoring_s: float  # awaited scores; other tickets of this process may have worked meanwhile


@dataclass(frozen=True)
class _Branches:
    """K candidates of one step, with the prediction at the next timestep where there is one."""

    latents: list[Tensor]
    predictions: list[Tensor]  # empty at the last step, where a candidate already is clean
    clean: list[Tensor]


async def draw_trajectories(
    model: TextToImage, score: ScoreFn, prompts: list[str], noise: SampleNoise, sampler: SamplerConfig
) -> Trajectories:
    """Draws one micro-batch. Awaits `score` once a tuned step and once for the finished images."""
    kernel, text = model.kernel, model.encode(prompts)
    pairs: list[StepPairs] = []
    x, calls, waited, started = noise.draw(), 1, 0.0, time.perf_counter()
    prediction = _predict(model, x, kernel.num_steps, text)
    for step in range(kernel.num_steps, 0, -1):
        timestep, timestep_prev = kernel.timestep(step), kernel.timestep_prev(step)
        t, t_prev = (torch.full((len(x),), value, device=x.device) for value in (timestep, timestep_prev))
        mean, std, _ = kernel.transition(prediction, x, t, t_prev)
        tuned = step in sampler.tuned_steps
        draws = sampler.num_candidates if tuned else 1
        branches = _branch(model, [mean + std.reshape(-1, 1, 1, 1) * noise.draw() for _ in range(draws)], step, text)
        calls += len(branches.predictions)
        if not tuned:
            x, prediction = branches.latents[0], (branches.predictions or [prediction])[0]
            continue
        scores = await _score(model, score, branches.clean, prompts)
        waited += scores[0].seconds
        rewards_BK = torch.stack([torch.from_numpy(one.total_B) for one in scores], 1)
        pairing = best_against_worst(rewards_BK)
        winner, loser = (_pick(branches.latents, chosen) for chosen in (pairing.winner, pairing.loser))
        x_t, won, lost = (value.float().cpu() for value in (x, winner, loser))
        pairs.append(StepPairs(step, timestep, timestep_prev, x_t, won, lost, pairing, scores))
        x = winner
        if branches.predictions:
            prediction = _pick(branches.predictions, pairing.winner)
    final = (await _score(model, score, [x], prompts))[0]
    waited += final.seconds
    return Trajectories(prompts, pairs, final, calls, time.perf_counter() - started - waited, waited)


# Here and not on the coroutine, where it would end before the first await (and other tickets share the thread).
@torch.no_grad()
def _predict(model: TextToImage, x: Tensor, step: int, text: Conditioning) -> Tensor:
    return model.denoise(x, torch.full((len(x),), model.kernel.timestep(step), device=x.device), text)


def _branch(model: TextToImage, latents: list[Tensor], step: int, text: Conditioning) -> _Branches:
    """Looks one step ahead from each candidate. One call of B each: the batch shape, hence the bits, never vary."""
    if step == 1:
        return _Branches(latents, [], latents)
    predictions = [_predict(model, latent, step - 1, text) for latent in latents]
    t = torch.full((len(latents[0]),), model.kernel.timestep(step - 1), device=latents[0].device)
    clean = [model.kernel.clean_latent(p, latent, t)[0] for p, latent in zip(predictions, latents, strict=True)]
    return _Branches(latents, predictions, clean)


async def _score(model: TextToImage, score: ScoreFn, clean: list[Tensor], prompts: list[str]) -> list[Scores]:
    """Scores K batches of clean latents in one call to the reward service."""
    images = np.concatenate([model.decode(latents).cpu().numpy() for latents in clean])
    asked, size = time.perf_counter(), len(prompts)
    answer = await score(images, prompts * len(clean))
    seconds = time.perf_counter() - asked
    return [
        Scores(
            answer.total_B[k * size : (k + 1) * size],
            {name: part[k * size : (k + 1) * size] for name, part in answer.parts.items()},
            seconds,
        )
        for k in range(len(clean))
    ]


def _pick(candidates: list[Tensor], chosen_B: Tensor) -> Tensor:
    """candidates[chosen_B[i]][i] for every sample i."""
    stacked = torch.stack(candidates)
    return stacked[chosen_B.to(stacked.device), torch.arange(len(chosen_B), device=stacked.device)]
