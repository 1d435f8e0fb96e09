"""Whole trajectories, ranked by their finished images: D3PO's pairs, pairs of finished images, DDPO's batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rayalign.algorithms.ddpo import group_advantages
from rayalign.algorithms.kernel import log_prob
from rayalign.algorithms.pairing import best_against_worst
from rayalign.config import FinalPairs, SamplePairs, TrajectoryPairs
from rayalign.models.conditioning import Conditioning
from rayalign.models.text_to_image import TextToImage
from rayalign.records import KEPT, SCORE_FAILED, TIE
from rayalign.rewards.protocol import ScoreFn
from rayalign.sampling.drawn import (
    Clock,
    Drawn,
    Rows,
    choose,
    choose_scores,
    filled,
    mean_scores,
    on_cpu,
    score_latents,
    statuses,
)
from rayalign.sampling.noise import SampleNoise


@dataclass(frozen=True)
class Transitions:
    """One step of B trajectories: x_t, the sample drawn from it, and its log-probability (B,)."""

    x_t: Tensor
    x_prev: Tensor
    log_prob: Tensor


@torch.no_grad()
def trajectory(
    model: TextToImage, x: Tensor, text: Conditioning, noise: SampleNoise, steps: tuple[int, ...]
) -> tuple[Tensor, dict[int, Transitions]]:
    """From x_T to clean latents, with the transitions of `steps` kept."""
    kernel, kept = model.kernel, {}
    for step in range(kernel.num_steps, 0, -1):
        t, t_prev = filled(kernel.timestep(step), x), filled(kernel.timestep_prev(step), x)
        mean, std, _ = kernel.transition(model.denoise(x, t, text), x, t, t_prev)
        x_prev = mean + std.reshape(-1, 1, 1, 1) * noise.draw()
        if step in steps:
            kept[step] = Transitions(x, x_prev, log_prob(x_prev, mean, std))
        x = x_prev
    return x, kept


async def draw_trajectory_pairs(
    model: TextToImage, score: ScoreFn, prompts: list[str], noise: SampleNoise, pairs: TrajectoryPairs, annotated: bool
) -> Drawn:
    """D3PO (arXiv 2311.13231): trajectories from one x_T; the finished images' label is used at every step."""
    clock, steps, text, start = Clock(), pairs.steps_on(model.kernel.num_steps), model.encode(prompts), noise.draw()
    ran = [trajectory(model, start, text, noise, steps) for _ in range(pairs.num_candidates)]
    finals = [clean for clean, _ in ran]
    scores = await score_latents(model, score, finals, prompts, clock)
    reward_BK = torch.stack([torch.from_numpy(one.total_B) for one in scores], 1)
    pairing = best_against_worst(reward_BK)
    status = statuses(pairing, scores, pairs.min_gap)
    won, lost = choose_scores(scores, pairing.winner), choose_scores(scores, pairing.loser)
    rows = []
    for step in sorted(steps, reverse=True):
        at = [kept[step] for _, kept in ran]
        latents = {
            "x_t": choose([one.x_t for one in at], pairing.winner),
            "x_t_loser": choose([one.x_t for one in at], pairing.loser),
            "winner": choose([one.x_prev for one in at], pairing.winner),
            "loser": choose([one.x_prev for one in at], pairing.loser),
        }
        if annotated:
            latents |= {"clean_winner": choose(finals, pairing.winner), "clean_loser": choose(finals, pairing.loser)}
        kernel = model.kernel
        times = kernel.timestep(step), kernel.timestep_prev(step)
        rows.append(Rows(step, *times, on_cpu(**latents), status, won, lost, np.zeros(len(prompts), dtype=bool)))
    calls = pairs.num_candidates * model.kernel.num_steps
    return Drawn(prompts, rows, mean_scores(scores), calls, pairs.num_candidates, *clock.seconds)


async def draw_final_pairs(
    model: TextToImage, score: ScoreFn, prompts: list[str], noise: SampleNoise, pairs: FinalPairs, annotated: bool
) -> Drawn:
    """Finished images of one prompt, each from its own noise; the best against the worst."""
    clock, text = Clock(), model.encode(prompts)
    finals = [trajectory(model, noise.draw(), text, noise, ())[0] for _ in range(pairs.num_candidates)]
    scores = await score_latents(model, score, finals, prompts, clock)
    reward_BK = torch.stack([torch.from_numpy(one.total_B) for one in scores], 1)
    pairing = best_against_worst(reward_BK)
    won, lost = choose_scores(scores, pairing.winner), choose_scores(scores, pairing.loser)
    latents = on_cpu(winner=choose(finals, pairing.winner), loser=choose(finals, pairing.loser))
    status, unmoved = statuses(pairing, scores, pairs.min_gap), np.zeros(len(prompts), dtype=bool)
    rows = [Rows(0, 0.0, 0.0, latents, status, won, lost, unmoved)]
    calls = pairs.num_candidates * model.kernel.num_steps
    return Drawn(prompts, rows, mean_scores(scores), calls, pairs.num_candidates, *clock.seconds)


async def draw_samples(
    model: TextToImage, score: ScoreFn, prompts: list[str], noise: SampleNoise, pairs: SamplePairs, annotated: bool
) -> Drawn:
    """DDPO (arXiv 2305.13301): every transition of a trajectory, with the trajectory's advantage.

    Neighbouring samples of one prompt are a group, and rewards are normalised in it. DDPO's code keeps running
    statistics of each prompt instead; a group makes a ticket a pure function of its number.
    """
    clock, steps, text = Clock(), pairs.steps_on(model.kernel.num_steps), model.encode(prompts)
    clean, kept = trajectory(model, noise.draw(), text, noise, steps)
    final = (await score_latents(model, score, [clean], prompts, clock))[0]
    reward_GB = torch.from_numpy(final.total_B).reshape(-1, pairs.group)
    advantage = group_advantages(reward_GB).reshape(-1).numpy()
    # A group of equal rewards says nothing; a failed score has no advantage, and is no reward to be equal to.
    scored = reward_GB.isfinite()
    highest, lowest = reward_GB.where(scored, -torch.inf).amax(1), reward_GB.where(scored, torch.inf).amin(1)
    equal = (highest <= lowest).repeat_interleave(pairs.group).tolist()
    status = [
        reason or (SCORE_FAILED if not np.isfinite(value) else TIE if tie else KEPT)
        for reason, value, tie in zip(final.unscored_B, advantage, equal, strict=True)
    ]
    rows = [
        Rows(
            step,
            model.kernel.timestep(step),
            model.kernel.timestep_prev(step),
            on_cpu(x_t=kept[step].x_t, winner=kept[step].x_prev),
            status,
            final,
            final,
            np.zeros(len(prompts), dtype=bool),
            advantage,
            kept[step].log_prob.cpu().numpy(),
        )
        for step in sorted(steps, reverse=True)
    ]
    return Drawn(prompts, rows, final, model.kernel.num_steps, 1, *clock.seconds)
