"""A micro-batch whose answers are known, for the tests of this folder."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from rayalign.objectives.base import Embeddings, ImplicitRewards, RowKind


@dataclass
class KnownView:
    """An `objectives.base.View` that answers what it was made with. `others`: rows of other workers, by own values."""

    rows: RowKind = "stepwise"
    winner_B: Tensor = field(default_factory=lambda: torch.zeros(2))
    loser_B: Tensor = field(default_factory=lambda: torch.zeros(2))
    margin_B: Tensor | None = None
    scale_B: Tensor | None = None  # type: ignore[assignment]
    valid_B: Tensor | None = None  # type: ignore[assignment]
    found: Embeddings | None = None
    log_prob_B: Tensor | None = None
    old_B: Tensor | None = None
    advantage_B: Tensor | None = None
    loss_B: Tensor | None = None
    others: KnownView | None = None

    def __post_init__(self) -> None:
        size = len(self.winner_B)
        self.scale_B = torch.ones(size) if self.scale_B is None else self.scale_B
        self.valid_B = torch.ones(size, dtype=torch.bool) if self.valid_B is None else self.valid_B

    def implicit_rewards(self) -> ImplicitRewards:
        margin = self.winner_B - self.loser_B if self.margin_B is None else self.margin_B
        return ImplicitRewards(self.winner_B, self.loser_B, margin)

    def winner_loss(self) -> Tensor:
        return known(self.loss_B)

    def log_probs(self) -> tuple[Tensor, Tensor]:
        return known(self.log_prob_B), known(self.old_B)

    def advantage(self) -> Tensor:
        return known(self.advantage_B)

    def embeddings(self) -> Embeddings:
        return known(self.found)

    def gather(self, values: Tensor) -> Tensor:
        """Own rows first, then those of the other worker: what is asked for is found by what it is here."""
        assert self.others is not None
        for own, other in zip(self._gatherable(), self.others._gatherable(), strict=True):
            if own.shape == values.shape and torch.equal(own, values):
                return torch.cat([values, other])
        raise AssertionError("asked to gather what is no column of this view")

    def _gatherable(self) -> list[Tensor]:
        return [self.loser_B, *known(self.found), known(self.valid_B).float()]


def known(value: Any) -> Any:
    """An objective that asks for what a view of its rows would not have has gone astray."""
    assert value is not None, f"not among {[one.name for one in fields(KnownView)]} of this view"
    return value
