"""Diffusion-RPO (arXiv 2406.06382): every winner against every loser, weighted by how alike prompts and images are."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from rayalign.objectives.base import DEFAULT_BETA, Losses, Objective, View
from rayalign.settings import AboveZero


class RPO(Objective):
    kind: Literal["rpo"] = "rpo"
    beta: AboveZero | None = Field(
        None, description="temperature; null: 0.1 per mean log-probability for transitions, 5000 for re-noised pairs"
    )
    tau: AboveZero = Field(0.1, description="temperature of the contrast weights; small: only the own pair counts")
    distance: Literal["prompt", "image", "joint"] = Field(
        "joint", description="what is compared: prompts (RPO), images, or the mean of both (the paper leaves it open)"
    )
    placement: Literal["outside", "inside"] = Field(
        "outside", description="where the weight stands: outside the log-sigmoid, or inside it as in RPO"
    )
    gather: bool = Field(False, description="contrast with the losers of all train workers, not only one's own")
    embedder: str = Field("clip", description="embeds prompts and images: clip (open_clip) or toy-clip")
    embedder_options: dict[str, Any] = Field({}, description="model, pretrained, ... of that scorer")

    @property
    def contrasts(self) -> bool:
        return True

    @property
    def gathers(self) -> bool:
        return self.gather

    @property
    def embeds_with(self) -> tuple[str, dict[str, Any]] | None:
        return self.embedder, self.embedder_options

    def losses(self, view: View) -> Losses:
        """-sum_j w_ij log sigmoid(h_i^w - h_j^l), (B,): of winner i against the losers of the micro-batch."""
        from rayalign.algorithms.diffusion_rpo import contrast_weights, embedding_distance, rpo_loss
        from rayalign.algorithms.dpo import prefers_winner

        beta = self.beta or DEFAULT_BETA[view.rows]
        rewards, embeds = view.implicit_rewards(), view.embeddings()
        loser_N, prompt_ND, image_ND, valid_N = (rewards.loser_B, embeds.prompt_BD, embeds.loser_BD, view.valid_B)
        if self.gather:
            loser_N, prompt_ND, image_ND = (view.gather(value) for value in (loser_N, prompt_ND, image_ND))
            valid_N = view.gather(valid_N.float()) > 0
        distance_BN = embedding_distance((embeds.prompt_BD, embeds.winner_BD), (prompt_ND, image_ND), self.distance)
        weights_BN = contrast_weights(distance_BN, self.tau, valid_N)
        loss_B = rpo_loss(beta * rewards.winner_B, beta * loser_N, weights_BN, self.placement, view.scale_B, valid_N)
        h_B = (beta * rewards.margin_B).detach()
        return loss_B, {"implicit_reward": h_B, "accuracy": prefers_winner(h_B)}
