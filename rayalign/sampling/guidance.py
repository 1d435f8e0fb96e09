"""TailorPO-G: the winner is moved along the reward's gradient, across the actor boundary.

The reward service answers d score / d image; here it is pulled back through the VAE decoder, the predicted clean
latent and the denoiser to the noisy candidate: one vector-Jacobian product (arXiv 2502.01667, section 3.3).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor

from rayalign.algorithms.guidance import cosine_eta, guided
from rayalign.config import GuidanceConfig
from rayalign.models.conditioning import Conditioning
from rayalign.models.text_to_image import TextToImage
from rayalign.records import Scores
from rayalign.rewards.protocol import DifferentiableScoreFn, ScoreFn
from rayalign.sampling.drawn import Clock, filled, score_latents


@dataclass(frozen=True)
class Guided:
    """The winners after guidance: moved where that raised their own step-wise reward, else as they were."""

    latents: Tensor  # (B, C, H, W)
    prediction: Tensor | None  # at the next timestep; None where the winner is clean
    clean: Tensor  # (B, C, H, W)
    scores: Scores
    accepted_B: np.ndarray  # bool
    calls: int  # guided denoiser evaluations per sample


@dataclass(frozen=True)
class Winner:
    """The best candidates of one step, before guidance."""

    latents: Tensor
    prediction: Tensor | None
    clean: Tensor
    scores: Scores


async def guide(
    model: TextToImage,
    score: ScoreFn,
    winner: Winner,
    step: int,
    text: Conditioning,
    prompts: list[str],
    config: GuidanceConfig,
    clock: Clock,
) -> Guided:
    """x+ = x + 2 eta_t delta grad r, kept where r(x+) > r(x) by the same scorer. `step` is the one drawn at."""
    gradient = await reward_gradient(model, score, winner.latents, step, text, prompts, clock)
    eta = cosine_eta(step, model.kernel.num_steps, config.eta_noisy, config.eta_clean)
    # A score that failed has no gradient: such a winner stays where it is.
    moved = guided(winner.latents, torch.nan_to_num(gradient, 0.0, 0.0, 0.0), eta, config.delta)
    prediction, clean = look_ahead(model, moved, step, text)
    scores = (await score_latents(model, score, [clean], prompts, clock))[0]
    accepted = scores.total_B > winner.scores.total_B  # False for NaN
    keep = torch.from_numpy(accepted).to(moved.device).reshape(-1, 1, 1, 1)

    def kept(new: Tensor, old: Tensor) -> Tensor:
        return torch.where(keep, new, old)

    parts = {name: np.where(accepted, scores.parts[name], part) for name, part in winner.scores.parts.items()}
    return Guided(
        latents=kept(moved, winner.latents),
        prediction=None if prediction is None or winner.prediction is None else kept(prediction, winner.prediction),
        clean=kept(clean, winner.clean),
        scores=Scores(
            np.where(accepted, scores.total_B, winner.scores.total_B), parts, reason_B=winner.scores.reason_B
        ),
        accepted_B=accepted,
        calls=0 if step == 1 else 2,
    )


async def reward_gradient(
    model: TextToImage,
    score: ScoreFn,
    latents: Tensor,
    step: int,
    text: Conditioning,
    prompts: list[str],
    clock: Clock,
) -> Tensor:
    """d r(x0hat(x)) / d x, (B, C, H, W): of each sample's own reward, which is the gradient of the batch's sum."""
    # The mode is on for the forward pass alone: other tickets share this thread while the scores are awaited.
    with torch.enable_grad():
        x = latents.detach().clone().requires_grad_(True)
        _, clean = look_ahead_with_grad(model, x, step, text)
        images = model.decode_with_grad(clean)
    pixels = images.detach().clamp(0, 1).cpu().numpy()
    asked = time.perf_counter()
    scores, gradient_BCHW = await cast(DifferentiableScoreFn, score).score_and_grad(pixels, prompts)
    clock.scored(scores, asked)
    (pulled_back,) = torch.autograd.grad(images, x, torch.from_numpy(gradient_BCHW).to(images))
    return pulled_back


@torch.no_grad()
def look_ahead(model: TextToImage, latents: Tensor, step: int, text: Conditioning) -> tuple[Tensor | None, Tensor]:
    """(prediction at the next timestep, clean latents it implies) of candidates drawn at `step`; clean at step 1."""
    return look_ahead_with_grad(model, latents, step, text)


def look_ahead_with_grad(
    model: TextToImage, latents: Tensor, step: int, text: Conditioning
) -> tuple[Tensor | None, Tensor]:
    """`look_ahead`, differentiable."""
    if step == 1:
        return None, latents
    t = filled(model.kernel.timestep(step - 1), latents)
    prediction = model.denoise(latents, t, text)
    return prediction, model.kernel.clean_latent(prediction, latents, t)[0]
