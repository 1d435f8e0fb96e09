"""DDPO (arXiv 2305.13301): clipped policy gradient on scalar rewards, the baseline that needs no pairs."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from rayalign.objectives.base import Losses, Objective, View
from rayalign.settings import AboveZero


class DDPO(Objective):
    rows: ClassVar[frozenset[str]] = frozenset({"sample"})
    metrics: ClassVar[tuple[str, ...]] = ("ratio", "clipped")
    kind: Literal["ddpo"] = "ddpo"
    ratio_clip: AboveZero = Field(1e-4, description="the likelihood ratio stops pulling outside 1 +- this")
    max_advantage: AboveZero = Field(5.0, description="advantages are cut to +- this")

    def losses(self, view: View) -> Losses:
        """-min(A ratio, A clip(ratio)), (B,), for each transition of a trajectory with advantage A."""
        from rayalign.algorithms.ddpo import ddpo_loss

        log_prob_B, old_B = view.log_probs()
        return ddpo_loss(log_prob_B, old_B, view.advantage(), self.ratio_clip, self.max_advantage)
