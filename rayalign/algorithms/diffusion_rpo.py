"""Diffusion-RPO: every winner of the batch against every loser, weighed by how alike prompts and images are.

"Diffusion-RPO: Aligning Diffusion Models through Relative Preference Optimization" by Gu et al. (arXiv 2406.06382),
after "Relative Preference Optimization" by Yin et al. (arXiv 2402.10958) for language models:

    w_ij = softmax_j( -d_ij / tau )
    loss = -(1/M) sum_i sum_j w_ij log sigmoid( h_i^w - h_j^l )           weight outside
    loss = -(1/MN) sum_i sum_j log sigmoid( w_ij (h_i^w - h_j^l) )        weight inside, as the language model's RPO

No public source settles which of the two Diffusion-RPO means, its distance, or its tau. The choices here are ours:
outside, prompt and image jointly, and a tau of 0.1 (the caller's).

Shape letters: M winners (this worker's), N losers (this worker's or, gathered, everybody's), D embedding width.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rayalign.algorithms.checks import check_batch

Modality = Literal["prompt", "image", "joint"]
Placement = Literal["outside", "inside"]


def embedding_distance(
    winner: tuple[Tensor | None, Tensor | None],
    loser: tuple[Tensor | None, Tensor | None],
    modality: Modality = "joint",
) -> Tensor:
    """d_ij = 1 - cos(winner_i, loser_j), (M, N), in [0, 2]; `joint` is the mean of the prompts' and the images'.

    Prompts alone are RPO's choice (there of a sentence encoder). Prompt is held against prompt and image against
    image: CLIP's two modalities lie apart, so a distance across them would say little.

    Args:
      winner, loser: their (prompt, image) embeddings, (M, D) and (N, D), of any length; None for one that the
        modality does not use.
    Raises ValueError where an embedding that the modality needs is missing, or on shapes that do not fit.
    """
    if modality == "prompt":
        return _cosine_distance("prompt", winner[0], loser[0])
    if modality == "image":
        return _cosine_distance("image", winner[1], loser[1])
    if modality == "joint":
        return (_cosine_distance("prompt", winner[0], loser[0]) + _cosine_distance("image", winner[1], loser[1])) / 2
    raise ValueError(f"modality must be prompt, image or joint, got {modality!r}")


def _cosine_distance(name: str, winner_MD: Tensor | None, loser_ND: Tensor | None) -> Tensor:
    if winner_MD is None or loser_ND is None:
        raise ValueError(f"this distance needs the {name} embeddings of winners and losers")
    if winner_MD.dim() != 2 or loser_ND.dim() != 2 or winner_MD.shape[1] != loser_ND.shape[1]:
        shapes = f"{tuple(winner_MD.shape)} and {tuple(loser_ND.shape)}"
        raise ValueError(f"{name} embeddings must be (M, D) and (N, D), got {shapes}")
    return 1 - F.normalize(winner_MD, dim=1) @ F.normalize(loser_ND, dim=1).T


def contrast_weights(distance_MN: Tensor, tau: float, valid_N: Tensor | None = None) -> Tensor:
    """w_ij = softmax over j of -d_ij / tau, (M, N); rows sum to 1.

    As tau falls to 0 the nearest loser takes all; as it grows the weights become 1/N. One pair alone has weight 1,
    and the method silently is DPO.

    Args:
      distance_MN: (M, N). tau: above 0.
      valid_N: bool (N,), False for a padded or dropped loser, whose column becomes exactly 0. Without any valid loser
        all weights are 0, so that a batch of padding costs nothing.
    Raises ValueError on other shapes or a tau that is not above 0.
    """
    if distance_MN.dim() != 2:
        raise ValueError(f"distance must be (M, N), got {tuple(distance_MN.shape)}")
    if not tau > 0:
        raise ValueError(f"tau must be above 0, got {tau}; its limit 0 is plain DPO")
    logits = -distance_MN / tau
    if valid_N is None:
        return logits.softmax(1)
    check_batch("valid", valid_N, distance_MN.shape[1])
    # Not -inf: a row of nothing else would be NaN.
    return logits.masked_fill(~valid_N, torch.finfo(logits.dtype).min).softmax(1) * valid_N


def rpo_loss(
    h_winner_M: Tensor,
    h_loser_N: Tensor,
    weights_MN: Tensor,
    placement: Placement = "outside",
    scale_M: Tensor | None = None,
    valid_N: Tensor | None = None,
) -> Tensor:
    """Loss of each winner, (M,), whose mean over all winners is the papers'.

    Args:
      h_winner_M, h_loser_N: implicit rewards, beta included, at one t for the whole batch; finite where masked too.
      weights_MN: from `contrast_weights`, with the same `valid_N`.
      placement: `outside` the log-sigmoid (rows add up) or `inside` it (then the mean over the valid losers).
      scale_M: factor inside the sigmoid, (M,), above 0; None is 1.
    Raises ValueError on other shapes or another placement.
    """
    num_winners, num_losers = h_winner_M.numel(), h_loser_N.numel()
    check_batch("h_winner", h_winner_M, num_winners)
    check_batch("h_loser", h_loser_N, num_losers)
    if tuple(weights_MN.shape) != (num_winners, num_losers):
        raise ValueError(f"weights must be ({num_winners}, {num_losers}), got {tuple(weights_MN.shape)}")
    h_MN = h_winner_M[:, None] - h_loser_N
    if scale_M is not None:
        check_batch("scale", scale_M, num_winners)
        h_MN = scale_M[:, None] * h_MN
    if placement == "outside":
        return (weights_MN * -F.logsigmoid(h_MN)).sum(1)
    if placement == "inside":
        return _mean_over_losers(-F.logsigmoid(weights_MN * h_MN), valid_N)
    raise ValueError(f"placement must be outside or inside, got {placement!r}")


def _mean_over_losers(loss_MN: Tensor, valid_N: Tensor | None) -> Tensor:
    """A masked loser has weight 0, hence a loss of log 2 that would water down the mean."""
    if valid_N is None:
        return loss_MN.mean(1)
    check_batch("valid", valid_N, loss_MN.shape[1])
    return (loss_MN * valid_N).sum(1) / valid_N.sum().clamp(min=1)
