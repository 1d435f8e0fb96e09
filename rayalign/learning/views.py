"""A micro-batch and the model's answers to it, as an objective asks for them (`objectives.base.View`).

Two kinds: transitions x_t -> x_prev (step-wise pairs, whole trajectories), and finished images, re-noised here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from rayalign.algorithms.diffusion_dpo import denoising_error, implicit_reward
from rayalign.algorithms.kernel import Transition, log_prob
from rayalign.algorithms.sft import renoised_sft_loss, transition_sft_loss
from rayalign.algorithms.tailorpo import log_ratio, margin
from rayalign.learning.batches import PairBatch
from rayalign.models.conditioning import Conditioning
from rayalign.models.text_to_image import TextToImage
from rayalign.models.weight_sets import WeightSet
from rayalign.objectives.base import Embeddings, ImplicitRewards

Gather = Callable[[Tensor], Tensor]


class Winners(NamedTuple):
    """What the divergence of a reference is measured on; `target` where the images are no draws of the policy."""

    x_t: Tensor
    timestep: Tensor
    text: Conditioning
    target: Tensor | None


class BatchView:
    """What both kinds share."""

    def __init__(self, model: TextToImage, batch: PairBatch, t_B: Tensor, scale_B: Tensor, gather: Gather) -> None:
        self.model, self.batch, self.t_B, self.scale_B, self._gather = model, batch, t_B, scale_B, gather
        self.rows, self.valid_B = batch.rows, batch.valid
        self.text = model.encode(batch.prompts)
        # (B,) of what the objective asked for: |log policy/reference| (or old policy), mean of the pair's two sides.
        self.log_ratio_B: Tensor | None = None

    def gather(self, values: Tensor) -> Tensor:
        return self._gather(values)

    def embeddings(self) -> Embeddings:
        found = self.batch.embeddings
        if found is None:
            raise ValueError("the pairs carry no embeddings; the annotate pool was left out of the pair stream")
        return found

    def advantage(self) -> Tensor:
        return self.batch.advantage

    def _note_ratios(self, *log_ratios_B: Tensor) -> None:
        self.log_ratio_B = torch.stack([ratio_B.detach().abs() for ratio_B in log_ratios_B]).mean(0)

    def _winners(self, x_t: Tensor, target: Tensor | None) -> Winners:
        """Without the rows that only keep their place: they hold zeros, which say nothing of a model."""
        valid = self.valid_B
        return Winners(x_t[valid], self.t_B[valid], self.text[valid], None if target is None else target[valid])

    def _both(self, x_winner: Tensor, x_loser: Tensor, weights: WeightSet) -> tuple[Tensor, Tensor]:
        """One call for winners and losers."""
        text = Conditioning.concatenate([self.text, self.text])
        answer = self._ask(torch.cat([x_winner, x_loser]), torch.cat([self.t_B, self.t_B]), text, weights)
        winner, loser = answer.chunk(2)
        return winner, loser

    def _ask(self, x: Tensor, t: Tensor, text: Conditioning, weights: WeightSet) -> Tensor:
        if weights == "policy":
            return self.model.denoise(x, t, text, "policy")
        with torch.no_grad():
            return self.model.denoise(x, t, text, weights)


class TransitionView(BatchView):
    """Rows of kind stepwise, trajectory or sample."""

    def implicit_rewards(self) -> ImplicitRewards:
        """Step-wise: one policy and one reference call for the pair, since both share x_t; else one for each."""
        latents = self.batch.latents
        if self.rows == "stepwise":
            reference, policy = (self._transition(latents["x_t"], name) for name in ("reference", "policy"))
            means = policy.mean, reference.mean, policy.std
            won, lost = (log_ratio(latents[name], *means) for name in ("winner", "loser"))
            self._note_ratios(won, lost)
            return ImplicitRewards(won, lost, margin(latents["winner"], latents["loser"], *means))
        sides = latents["x_t"], latents["x_t_loser"]
        answers = [self._both(*sides, name) for name in ("reference", "policy")]  # type: ignore[arg-type]
        ratios = []
        for x_t, x_prev, reference_eps, policy_eps in zip(
            sides, (latents["winner"], latents["loser"]), *answers, strict=True
        ):
            reference, policy = (self._step(eps, x_t) for eps in (reference_eps, policy_eps))
            ratios.append(log_ratio(x_prev, policy.mean, reference.mean, policy.std))
        self._note_ratios(*ratios)
        return ImplicitRewards(ratios[0], ratios[1], ratios[0] - ratios[1])

    def winner_loss(self) -> Tensor:
        policy = self._transition(self.batch.latents["x_t"], "policy")
        return transition_sft_loss(self.batch.latents["winner"], policy.mean, policy.std)[0]

    def log_probs(self) -> tuple[Tensor, Tensor]:
        policy = self._transition(self.batch.latents["x_t"], "policy")
        now = log_prob(self.batch.latents["winner"], policy.mean, policy.std)
        self._note_ratios(now - self.batch.log_prob)
        return now, self.batch.log_prob

    def winners(self) -> Winners:
        return self._winners(self.batch.latents["x_t"], None)

    def _transition(self, x_t: Tensor, weights: WeightSet) -> Transition:
        return self._step(self._ask(x_t, self.t_B, self.text, weights), x_t)

    def _step(self, prediction: Tensor, x_t: Tensor) -> Transition:
        return self.model.kernel.transition(prediction, x_t, self.t_B, self.batch.timestep_prev)


class RenoisedView(BatchView):
    """Rows of kind clean, with one noise and one timestep a pair."""

    def __init__(
        self,
        model: TextToImage,
        batch: PairBatch,
        t_B: Tensor,
        scale_B: Tensor,
        gather: Gather,
        noise: Tensor,
        on_policy: bool,
    ) -> None:
        super().__init__(model, batch, t_B, scale_B, gather)
        self._on_policy = on_policy
        self._noisy, self._target = {}, {}  # type: tuple[dict[str, Tensor], dict[str, Tensor]]
        for side in ("winner", "loser"):
            self._noisy[side] = model.kernel.add_noise(batch.latents[side], noise, t_B)
            self._target[side] = model.kernel.target(batch.latents[side], noise, t_B)

    def implicit_rewards(self) -> ImplicitRewards:
        sides = self._noisy["winner"], self._noisy["loser"]
        reference, policy = (self._both(*sides, name) for name in ("reference", "policy"))  # type: ignore[arg-type]
        won, lost = (
            implicit_reward(denoising_error(policy[side], target), denoising_error(reference[side], target))
            for side, target in enumerate((self._target["winner"], self._target["loser"]))
        )
        self._note_ratios(won, lost)
        return ImplicitRewards(won, lost, won - lost)

    def winner_loss(self) -> Tensor:
        policy = self._ask(self._noisy["winner"], self.t_B, self.text, "policy")
        return renoised_sft_loss(policy, self._target["winner"])[0]

    def log_probs(self) -> tuple[Tensor, Tensor]:
        raise ValueError("finished images have no log-probability; the policy gradient needs sampled transitions")

    def winners(self) -> Winners:
        return self._winners(self._noisy["winner"], None if self._on_policy else self._target["winner"])
