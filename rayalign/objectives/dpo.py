"""Direct preference optimisation, on whatever pairs there are.

Step-wise pairs: TailorPO (arXiv 2502.01667, eq. 10), and SPO with its sampler. Whole trajectories: D3PO (2311.13231).
Re-noised images: Diffusion-DPO (2311.12908).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rayalign.objectives.base import DEFAULT_BETA, Losses, Objective, View
from rayalign.settings import AboveZero


class DPO(Objective):
    kind: Literal["dpo"] = "dpo"
    beta: AboveZero | None = Field(
        None, description="temperature; null: 0.1 per mean log-probability for transitions, 5000 for re-noised pairs"
    )
    ratio_clip: AboveZero | None = Field(
        0.1,
        description="of transitions: each likelihood ratio kept in 1 +- this (D3PO's code); null for none (the papers)",
    )

    def losses(self, view: View) -> Losses:
        """-log sigmoid(scale beta (h_w - h_l)), with the ratios of transitions kept in 1 +- ratio_clip."""
        from rayalign.algorithms.dpo import dpo_loss
        from rayalign.algorithms.tailorpo import clip_log_ratio

        beta = self.beta or DEFAULT_BETA[view.rows]
        found = view.implicit_rewards()
        if self.ratio_clip is None or view.rows == "clean":
            return dpo_loss(beta * found.margin_B, view.scale_B)
        winner_B, loser_B = (clip_log_ratio(ratio_B, self.ratio_clip) for ratio_B in found[:2])
        return dpo_loss(beta * (winner_B - loser_B), view.scale_B)
