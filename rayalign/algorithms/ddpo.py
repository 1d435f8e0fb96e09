"""DDPO: the scalar-reward baseline, a clipped policy gradient on single denoising steps.

"Training Diffusion Models with Reinforcement Learning" by Black et al. (arXiv 2305.13301), section 4.3 (the
importance-sampled estimator), with the clipped surrogate of "Proximal Policy Optimization Algorithms" by Schulman et
al. (arXiv 1707.06347), equation 7, and rewards normalised per prompt:

    A     = (r - mean(r)) / (std(r) + eps)                    over the trajectories of one prompt
    ratio = pi_th(x_prev|x_t) / pi_old(x_prev|x_t)
    loss  = -min( ratio A, clamp(ratio, 1 - clip, 1 + clip) A )

Shape letters: B steps of trajectories, G trajectories of one prompt (in `reward_BG` B counts prompts).
"""

from __future__ import annotations

import torch
from torch import Tensor

from rayalign.algorithms.checks import check_batch

# Keeps a group whose rewards differ by rounding only from getting advantages of full size.
STD_FLOOR = 1e-6


def group_advantages(reward_BG: Tensor) -> Tensor:
    """(r - mean) / (std + eps) in each group, (B, G); std of the population, eps 1e-6 as in DDPO's code.

    A group with equal rewards prefers nobody: exactly 0. A reward that is not finite (a failed score) is NaN in the
    answer and enters neither mean nor std; the caller drops and counts it.
    Raises ValueError unless the rank is 2.
    """
    if reward_BG.dim() != 2:
        raise ValueError(f"rewards must be (B, G), got {tuple(reward_BG.shape)}")
    scored = torch.isfinite(reward_BG)
    # In float64, where the mean of rewards near 20 keeps differences near 1e-6.
    reward = torch.where(scored, reward_BG, 0.0).double()
    count = scored.sum(1, keepdim=True).clamp(min=1)
    centred = torch.where(scored, reward - reward.sum(1, keepdim=True) / count, 0.0)
    std = ((centred**2).sum(1, keepdim=True) / count).sqrt()
    # The mean of equal rewards can be one rounding off them.
    lowest = torch.where(scored, reward, torch.inf).amin(1, keepdim=True)
    highest = torch.where(scored, reward, -torch.inf).amax(1, keepdim=True)
    advantage = torch.where(lowest == highest, 0.0, centred / (std + STD_FLOOR))
    return torch.where(scored, advantage, torch.nan).to(reward_BG.dtype)


def ddpo_loss(
    log_prob_B: Tensor, log_prob_old_B: Tensor, advantage_B: Tensor, clip: float = 1e-4, max_advantage: float = 5.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Per-sample loss (B,) and detached diagnostics (B,): ratio, and clipped, 1 where it left 1 +- clip.

    Args:
      log_prob_B: of x_prev under the policy, (B,), the mean over latent elements (`kernel.log_prob`); so is the ratio,
        which is why DDPO's clip can be as small as 1e-4.
      log_prob_old_B: the same under the policy that drew x_prev.
      advantage_B: (B,), clamped to +- max_advantage (5 in DDPO's code), lest one lucky sample outweigh the batch.
    Raises ValueError on other shapes.
    """
    batch = log_prob_B.numel()
    check_batch("log_prob", log_prob_B, batch)
    check_batch("log_prob_old", log_prob_old_B, batch)
    check_batch("advantage", advantage_B, batch)
    advantage = advantage_B.clamp(-max_advantage, max_advantage)
    ratio = (log_prob_B - log_prob_old_B).exp()
    loss = -torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
    left = ((ratio - 1).abs() > clip).float()
    return loss, {"ratio": ratio.detach(), "clipped": left}
