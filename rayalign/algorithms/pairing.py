"""Candidates and their rewards -> which one wins, which one loses, and whether that is a preference at all."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Pairing(NamedTuple):
    """winner, loser: candidate index, int64 (B,). tie, failed: bool (B,), never both; such a row is no preference."""

    winner: Tensor
    loser: Tensor
    tie: Tensor
    failed: Tensor


def best_against_worst(reward_BK: Tensor) -> Pairing:
    """The best candidate against the worst; for K = 2 this is TailorPO's pair (arXiv 2502.01667, section 3).

    Equal rewards are a tie, a NaN anywhere in the row is a failure; in both cases winner is candidate 0 and loser
    candidate 1, so that the trajectory goes on the same way on every machine.
    Raises ValueError unless the rank is 2 with K of at least 2.
    """
    if reward_BK.dim() != 2 or reward_BK.shape[1] < 2:
        raise ValueError(f"rewards must be (B, K) with K >= 2, got {tuple(reward_BK.shape)}")
    failed = ~torch.isfinite(reward_BK).all(1)
    usable = torch.where(failed[:, None], torch.zeros_like(reward_BK), reward_BK)
    winner, loser = usable.argmax(1), usable.argmin(1)
    tie = (usable.amax(1) == usable.amin(1)) & ~failed
    undecided = tie | failed
    winner = torch.where(undecided, torch.zeros_like(winner), winner)
    loser = torch.where(undecided, torch.ones_like(loser), loser)
    return Pairing(winner, loser, tie, failed)
