"""TailorPO as one first writes it, to compare with: the same pairs and the same gradient, for more denoiser calls.

Sampling: the calls that score the candidates are thrown away, so the winner is denoised again at the next step.
Training: as D3PO's code (arXiv 2311.13231) does for two trajectories, policy and reference are asked for winner and
loser apart, and each log-probability is computed by its definition.
"""

from __future__ import annotations

import copy
from types import MethodType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rayalign.algorithms.ddim import log_prob
from rayalign.algorithms.pairing import best_against_worst
from rayalign.config import SamplerConfig
from rayalign.learning.batches import PairBatch
from rayalign.learning.learner import Learner
from rayalign.models.conditioning import Conditioning
from rayalign.models.text_to_image import TextToImage
from rayalign.rewards.protocol import ScoreFn
from rayalign.sampling.noise import SampleNoise
from rayalign.sampling.stepwise import StepPairs


def naive_calls_per_trajectory(sampler: SamplerConfig) -> int:
    """One call a step, and one more for every candidate that is not clean already."""
    return sampler.num_steps + sampler.num_candidates * sum(step > 1 for step in sampler.tuned_steps)


@torch.no_grad()
async def naive_trajectories(
    model: TextToImage, score: ScoreFn, prompts: list[str], noise: SampleNoise, sampler: SamplerConfig
) -> list[StepPairs]:
    """`rayalign.sampling.stepwise.draw_trajectories` without its reuse of the scoring calls."""
    kernel, text, x = model.kernel, model.encode(prompts), noise.draw()
    pairs: list[StepPairs] = []
    for step in range(kernel.num_steps, 0, -1):
        t, t_prev = _filled(kernel.timestep(step), x), _filled(kernel.timestep_prev(step), x)
        mean, std, _ = kernel.transition(model.denoise(x, t, text), x, t, t_prev)
        draws = sampler.num_candidates if step in sampler.tuned_steps else 1
        candidates = [mean + std.reshape(-1, 1, 1, 1) * noise.draw() for _ in range(draws)]
        if draws == 1:
            x = candidates[0]
            continue
        images = [model.decode(_predicted_clean(model, latent, step, text)) for latent in candidates]
        scores = await score(np.concatenate([image.cpu().numpy() for image in images]), prompts * draws)
        pairing = best_against_worst(torch.from_numpy(scores.total_B.reshape(draws, len(x)).T))
        stacked, row = torch.stack(candidates), torch.arange(len(x), device=x.device)
        winner, loser = (stacked[chosen.to(x.device), row] for chosen in (pairing.winner, pairing.loser))
        x_t, won, lost = (value.float().cpu() for value in (x, winner, loser))
        pairs.append(StepPairs(step, int(t[0]), int(t_prev[0]), x_t, won, lost, pairing, [scores]))
        x = winner
    await score(model.decode(x).cpu().numpy(), prompts)
    return pairs


def _predicted_clean(model: TextToImage, latent: Tensor, step: int, text: Conditioning) -> Tensor:
    if step == 1:
        return latent
    t = _filled(model.kernel.timestep(step - 1), latent)
    return model.kernel.clean_latent(model.denoise(latent, t, text), latent, t)[0]


def _filled(value: int, like: Tensor) -> Tensor:
    return torch.full((len(like),), value, device=like.device)


def naive_learner(learner: Learner) -> Learner:
    """The same model, optimiser, precision and micro-batches; only the way to the loss differs."""
    naive = copy.copy(learner)
    naive.losses = MethodType(naive_losses, naive)  # type: ignore[method-assign]
    return naive


def naive_losses(learner: Learner, batch: PairBatch) -> tuple[Tensor, dict[str, Tensor]]:
    """TailorPO's equation 10, term by term; the ratios are clamped as D3PO's code does."""
    model, config = learner.model, learner.config
    text = model.encode(batch.prompts)

    def log_ratio(x_prev: Tensor) -> Tensor:
        steps = batch.x_t, batch.timestep, batch.timestep_prev
        with torch.no_grad():
            reference = model.denoise(batch.x_t, batch.timestep, text, "reference")
        policy = model.denoise(batch.x_t, batch.timestep, text, "policy")
        (mean, std, _), (mean_reference, _, _) = (model.kernel.transition(eps, *steps) for eps in (policy, reference))
        ratio = log_prob(x_prev, mean, std) - log_prob(x_prev, mean_reference, std)
        if config.ratio_clip is None:
            return ratio
        bounds = torch.tensor([1 - config.ratio_clip, 1 + config.ratio_clip]).log().tolist()
        return ratio.clamp(*bounds)

    h = config.beta * (log_ratio(batch.winner) - log_ratio(batch.loser))
    return -F.logsigmoid(h), {}
