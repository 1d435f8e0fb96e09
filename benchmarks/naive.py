"""TailorPO as one first writes it, to compare with: the same pairs and the same gradient, for more denoiser calls.

Sampling: the calls that score the candidates are thrown away, so the winner is denoised again at the next step.
Training: as D3PO's code (arXiv 2311.13231) does for two trajectories, policy and reference are asked for winner and
loser apart, and each log-probability is computed by its definition.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rayalign.algorithms.kernel import log_prob
from rayalign.algorithms.pairing import best_against_worst
from rayalign.config import StepwisePairs
from rayalign.learning.learner import Learner
from rayalign.learning.views import TransitionView
from rayalign.models.conditioning import Conditioning
from rayalign.models.text_to_image import TextToImage
from rayalign.objectives.base import DEFAULT_BETA, Losses, View
from rayalign.objectives.dpo import DPO
from rayalign.rewards.protocol import ScoreFn
from rayalign.sampling.noise import SampleNoise

Latents = dict[str, Tensor]  # x_t, winner, loser, (B, C, H, W) each


@torch.no_grad()
async def naive_trajectories(
    model: TextToImage, score: ScoreFn, prompts: list[str], noise: SampleNoise, pairs: StepwisePairs
) -> list[Latents]:
    """The pairs of `rayalign.sampling.sources.draw_stepwise`, step by step, without its reuse of the scoring calls."""
    kernel, text, x = model.kernel, model.encode(prompts), noise.draw()
    drawn: list[Latents] = []
    for step in range(kernel.num_steps, 0, -1):
        t, t_prev = _filled(kernel.timestep(step), x), _filled(kernel.timestep_prev(step), x)
        mean, std, _ = kernel.transition(model.denoise(x, t, text), x, t, t_prev)
        draws = pairs.num_candidates if step in pairs.tuned_steps else 1
        candidates = [mean + std.reshape(-1, 1, 1, 1) * noise.draw() for _ in range(draws)]
        if draws == 1:
            x = candidates[0]
            continue
        images = [model.decode(_predicted_clean(model, latent, step, text)) for latent in candidates]
        scores = await score(np.concatenate([image.cpu().numpy() for image in images]), prompts * draws)
        pairing = best_against_worst(torch.from_numpy(scores.total_B.reshape(draws, len(x)).T))
        stacked, row = torch.stack(candidates), torch.arange(len(x), device=x.device)
        winner, loser = (stacked[chosen.to(x.device), row] for chosen in (pairing.winner, pairing.loser))
        drawn.append({"x_t": x.float().cpu(), "winner": winner.float().cpu(), "loser": loser.float().cpu()})
        x = winner
    await score(model.decode(x).cpu().numpy(), prompts)
    return drawn


def _predicted_clean(model: TextToImage, latent: Tensor, step: int, text: Conditioning) -> Tensor:
    if step == 1:
        return latent
    t = _filled(model.kernel.timestep(step - 1), latent)
    return model.kernel.clean_latent(model.denoise(latent, t, text), latent, t)[0]


def _filled(value: float, like: Tensor) -> Tensor:
    return torch.full((len(like),), value, device=like.device)


def naive_learner(learner: Learner) -> Learner:
    """The same model, optimiser, precision and micro-batches; only the way to the loss differs."""
    naive = copy.copy(learner)
    naive.objective = NaiveDPO(**learner.objective.model_dump())
    return naive


class NaiveDPO(DPO):
    """TailorPO's equation 10, term by term; the ratios are clamped as D3PO's code does."""

    def losses(self, view: View) -> Losses:
        assert isinstance(view, TransitionView)
        beta = self.beta or DEFAULT_BETA[view.rows]
        winner, loser = (self._log_ratio(view, side) for side in ("winner", "loser"))
        return -F.logsigmoid(beta * (winner - loser)), {}

    def _log_ratio(self, view: TransitionView, side: str) -> Tensor:
        model, batch = view.model, view.batch
        x_t, x_prev = batch.latents["x_t"], batch.latents[side]
        steps = x_t, batch.timestep, batch.timestep_prev
        with torch.no_grad():
            reference = model.denoise(x_t, batch.timestep, view.text, "reference")
        policy = model.denoise(x_t, batch.timestep, view.text, "policy")
        (mean, std, _), (mean_reference, _, _) = (model.kernel.transition(eps, *steps) for eps in (policy, reference))
        ratio = log_prob(x_prev, mean, std) - log_prob(x_prev, mean_reference, std)
        if self.ratio_clip is None:
            return ratio
        bounds = torch.tensor([1 - self.ratio_clip, 1 + self.ratio_clip]).log().tolist()
        return ratio.clamp(*bounds)
