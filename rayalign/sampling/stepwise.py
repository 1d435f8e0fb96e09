"""Step-wise preference pairs: at tuned steps, candidates branch from one x_t, are scored, and one of them goes on.

TailorPO, arXiv 2502.01667, section 3.2 (numbers below are those of methods.md's walk through it). A candidate is
scored through the clean image predicted *from it*: one denoiser call at the next timestep, then the VAE, then the
reward. That call is also the next step's denoising call for whichever candidate goes on, so 20 steps with 5 tuned and
K = 2 cost 25 calls, not 30. With a random candidate going on and a reward gap to pass it is SPO (2406.04314).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from rayalign.algorithms.pairing import best_against_worst
from rayalign.config import StepwisePairs
from rayalign.models.conditioning import Conditioning
from rayalign.models.text_to_image import TextToImage
from rayalign.records import Scores
from rayalign.rewards.protocol import ScoreFn
from rayalign.sampling.drawn import (
    Clock,
    Drawn,
    Rows,
    choose,
    choose_scores,
    filled,
    on_cpu,
    score_latents,
    statuses,
)
from rayalign.sampling.guidance import Guided, Winner, guide, look_ahead
from rayalign.sampling.noise import SampleNoise


class StepwiseSampler:
    """One micro-batch on its way from noise to images."""

    def __init__(
        self,
        model: TextToImage,
        score: ScoreFn,
        prompts: list[str],
        noise: SampleNoise,
        pairs: StepwisePairs,
        annotated: bool,
    ) -> None:
        self.model, self.score, self.prompts, self.noise = model, score, prompts, noise
        self.pairs, self.annotated = pairs, annotated
        self.text: Conditioning = model.encode(prompts)
        self.clock, self.calls = Clock(), 0
        self.rows: list[Rows] = []

    async def draw(self) -> Drawn:
        """Awaits scores once a tuned step (three times with guidance) and once for the finished images."""
        kernel, x = self.model.kernel, self.noise.draw()
        prediction = self._first_call(x)
        for step in range(kernel.num_steps, 0, -1):
            candidates = self._candidates(x, prediction, step)
            ahead = [self._look_ahead(latents, step) for latents in candidates]
            if step in self.pairs.tuned_steps:
                x, following = await self._branch(x, candidates, ahead, step)
            else:
                x, following = candidates[0], ahead[0][0]
            prediction = prediction if following is None else following
        final = (await score_latents(self.model, self.score, [x], self.prompts, self.clock))[0]
        clock = self.clock
        return Drawn(self.prompts, self.rows, final, self.calls, 1, *clock.seconds)

    # Here and not on the coroutine, where it would end before the first await (and other tickets share the thread).
    @torch.no_grad()
    def _first_call(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.model.denoise(x, filled(self.model.kernel.timestep(self.model.kernel.num_steps), x), self.text)

    def _candidates(self, x: Tensor, prediction: Tensor, step: int) -> list[Tensor]:
        kernel = self.model.kernel
        t, t_prev = filled(kernel.timestep(step), x), filled(kernel.timestep_prev(step), x)
        mean, std, _ = kernel.transition(prediction, x, t, t_prev)
        count = self.pairs.num_candidates if step in self.pairs.tuned_steps else 1
        return [mean + std.reshape(-1, 1, 1, 1) * self.noise.draw() for _ in range(count)]

    def _look_ahead(self, latents: Tensor, step: int) -> tuple[Tensor | None, Tensor]:
        """One call of B for each candidate: the batch shape, hence the bits, never vary."""
        self.calls += step > 1
        return look_ahead(self.model, latents, step, self.text)

    async def _branch(
        self, x: Tensor, candidates: list[Tensor], ahead: list[tuple[Tensor | None, Tensor]], step: int
    ) -> tuple[Tensor, Tensor | None]:
        """Scores and ranks the candidates of one step, notes the pair; returns the one that goes on."""
        clean, predictions = [one[1] for one in ahead], [one[0] for one in ahead if one[0] is not None]
        scores = await score_latents(self.model, self.score, clean, self.prompts, self.clock)
        reward_BK = torch.stack([torch.from_numpy(one.total_B) for one in scores], 1)
        pairing = best_against_worst(reward_BK)
        won = Winner(
            choose(candidates, pairing.winner),
            choose(predictions, pairing.winner) if predictions else None,
            choose(clean, pairing.winner),
            choose_scores(scores, pairing.winner),
        )
        best = await self._guided(won, step)
        lost = choose(candidates, pairing.loser), choose(clean, pairing.loser), choose_scores(scores, pairing.loser)
        self._note(step, x, best, lost, statuses(pairing, scores, self.pairs.min_gap))
        if self.pairs.continuation == "winner":
            return best.latents, best.prediction
        onward = self.noise.choose(len(candidates))
        return choose(candidates, onward), choose(predictions, onward) if predictions else None

    async def _guided(self, won: Winner, step: int) -> Guided:
        if not self.pairs.guidance.enabled:
            unmoved = np.zeros(len(self.prompts), dtype=bool)
            return Guided(won.latents, won.prediction, won.clean, won.scores, unmoved, 0)
        found = await guide(self.model, self.score, won, step, self.text, self.prompts, self.pairs.guidance, self.clock)
        self.calls += found.calls
        return found

    def _note(self, step: int, x: Tensor, best: Guided, lost: tuple[Tensor, Tensor, Scores], status: list[str]) -> None:
        """One pair a sample. `lost`: the losers' latents, their predicted clean latents, their scores."""
        kernel, (loser, loser_clean, loser_scores) = self.model.kernel, lost
        latents = {"x_t": x, "winner": best.latents, "loser": loser}
        if self.annotated:
            latents |= {"clean_winner": best.clean, "clean_loser": loser_clean}
        times = kernel.timestep(step), kernel.timestep_prev(step)
        rows = Rows(step, *times, on_cpu(**latents), status, best.scores, loser_scores, best.accepted_B)
        self.rows.append(rows)
