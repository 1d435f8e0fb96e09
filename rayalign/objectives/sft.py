"""Supervised fine-tuning on the winners alone: what preference learning has to beat."""

from __future__ import annotations

from typing import ClassVar, Literal

from rayalign.objectives.base import Losses, Objective, View


class SFT(Objective):
    kind: Literal["sft"] = "sft"
    metrics: ClassVar[tuple[str, ...]] = ()

    def losses(self, view: View) -> Losses:
        return view.winner_loss(), {}
