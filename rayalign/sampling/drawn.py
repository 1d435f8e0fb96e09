"""What sampling a ticket gives, whatever the pair source: rows, and what the finished images scored.

Shape letters: B samples of a ticket, K candidates, C H W latent channels, height, width.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import compress

import numpy as np
import torch
from torch import Tensor

from rayalign.algorithms.pairing import Pairing
from rayalign.models.text_to_image import TextToImage
from rayalign.records import KEPT, LATENT_FAILED, SMALL_GAP, TIE, Scores
from rayalign.rewards.protocol import ScoreFn


@dataclass(frozen=True)
class Rows:
    """The B rows drawn at one step (0: of finished images). Latents are float32 on the CPU."""

    step: int
    timestep: float
    timestep_prev: float
    latents: dict[str, Tensor]  # column of `records.LATENTS` -> (B, C, H, W)
    status: list[str]
    winner: Scores
    loser: Scores
    guided_B: np.ndarray  # bool: the winner was moved along the reward's gradient
    advantage_B: np.ndarray | None = None  # of `sample` rows
    log_prob_B: np.ndarray | None = None  # of `sample` rows, under the policy that drew them


@dataclass(frozen=True)
class Drawn:
    """One ticket: rows, noisiest step first."""

    prompts: list[str]
    rows: list[Rows]
    final: Scores  # of a sample's finished images, their mean: that of the winners alone would be a better policy's
    denoiser_calls: int  # per sample, all its candidates together
    trajectories: int  # whole trajectories per sample
    denoising_s: float  # wall time, scoring apart
    scoring_s: float  # awaited scores; other tickets of this process may have worked meanwhile
    queued_s: float  # held back before, as too many images of this process were unanswered


class Clock:
    """Wall time of one ticket, with the waiting for scores told apart."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self.scoring_s = self.queued_s = 0.0

    def scored(self, scores: Scores, asked: float) -> None:
        """The answer to what was asked at `asked` (`time.perf_counter`) is there."""
        self.scoring_s += time.perf_counter() - asked - scores.queued_s
        self.queued_s += scores.queued_s

    @property
    def seconds(self) -> tuple[float, float, float]:
        """Denoising and all else here, scoring, queued."""
        waited = self.scoring_s + self.queued_s
        return time.perf_counter() - self._started - waited, self.scoring_s, self.queued_s


async def score_latents(
    model: TextToImage, score: ScoreFn, clean: list[Tensor], prompts: list[str], clock: Clock
) -> list[Scores]:
    """Scores K batches of clean latents (B, C, H, W) in one call to the reward service.

    Latents that are not finite make no picture: no scorer meets one (some would answer NaN with a number), and the
    score is NaN by the reason LATENT_FAILED.
    """
    finite_N = torch.cat([finite_rows(latents) for latents in clean]).cpu().numpy()
    images = np.concatenate([model.decode(latents).cpu().numpy() for latents in clean])
    asked, size = time.perf_counter(), len(prompts)
    if finite_N.all():
        answer = await score(images, prompts * len(clean))
    else:
        answer = await _score_some(score, images, prompts * len(clean), finite_N)
    clock.scored(answer, asked)
    return [pick_scores(answer, np.arange(k * size, (k + 1) * size)) for k in range(len(clean))]


def finite_rows(latents: Tensor) -> Tensor:
    """bool (B,): every number of the sample's latents (B, ...) is finite."""
    return latents.isfinite().flatten(1).all(1)


async def _score_some(score: ScoreFn, images: np.ndarray, prompts: list[str], finite_N: np.ndarray) -> Scores:
    """Asks about the pictures in `finite_N`, of none about black ones (an answer names the scorers); NaN elsewhere."""
    images[~finite_N] = 0.0
    asked_N = finite_N if finite_N.any() else np.ones_like(finite_N)
    answer = await score(images[asked_N], list(compress(prompts, asked_N)))

    def spread(values: np.ndarray) -> np.ndarray:
        whole = np.full(len(finite_N), np.nan, dtype=np.float32)
        whole[asked_N] = values
        return np.where(finite_N, whole, np.float32(np.nan))

    reason_N = np.full(len(finite_N), LATENT_FAILED, dtype=object)
    reason_N[asked_N] = np.where(finite_N[asked_N], answer.unscored_B, LATENT_FAILED)
    parts = {name: spread(part) for name, part in answer.parts.items()}
    return replace(answer, total_B=spread(answer.total_B), parts=parts, reason_B=reason_N)


def pick_scores(scores: Scores, rows: np.ndarray) -> Scores:
    parts = {name: part[rows] for name, part in scores.parts.items()}
    return Scores(scores.total_B[rows], parts, reason_B=scores.unscored_B[rows])


def choose_scores(scores_K: list[Scores], chosen_B: Tensor) -> Scores:
    """For every sample i, the scores of candidate chosen_B[i]."""

    def chosen(values_KB: list[np.ndarray]) -> np.ndarray:
        return np.stack(values_KB)[chosen_B.cpu().numpy(), np.arange(len(chosen_B))]

    parts = {name: chosen([scores.parts[name] for scores in scores_K]) for name in scores_K[0].parts}
    reason_B = chosen([scores.unscored_B for scores in scores_K])
    return Scores(chosen([scores.total_B for scores in scores_K]), parts, reason_B=reason_B)


def mean_scores(scores_K: list[Scores]) -> Scores:
    """Of every sample its candidates' mean; a candidate without a score stands in none, NaN if no candidate has one."""

    def mean(values_KB: list[np.ndarray]) -> np.ndarray:
        stacked = np.ma.masked_invalid(np.stack(values_KB).astype(np.float64))
        return np.asarray(stacked.mean(0).filled(np.nan), dtype=np.float32)

    parts = {name: mean([scores.parts[name] for scores in scores_K]) for name in scores_K[0].parts}
    return Scores(mean([scores.total_B for scores in scores_K]), parts)


def choose(candidates_K: list[Tensor], chosen_B: Tensor) -> Tensor:
    """candidates_K[chosen_B[i]][i] for every sample i."""
    stacked = torch.stack(candidates_K)
    return stacked[chosen_B.to(stacked.device), torch.arange(len(chosen_B), device=stacked.device)]


def statuses(pairing: Pairing, scores_K: list[Scores], min_gap: float) -> list[str]:
    """What becomes of each sample's pair. One that failed has the reason of its first candidate without a score."""
    reward_KB = np.stack([scores.total_B for scores in scores_K])
    gap_B = reward_KB.max(0) - reward_KB.min(0)
    reason_B = [next(filter(None, reasons), "") for reasons in zip(*(one.unscored_B for one in scores_K), strict=True)]

    def status(tie: bool, reason: str, gap: float) -> str:
        return reason or (TIE if tie else SMALL_GAP if gap <= min_gap else KEPT)

    return [status(*row) for row in zip(pairing.tie.tolist(), reason_B, gap_B.tolist(), strict=True)]


def on_cpu(**latents: Tensor) -> dict[str, Tensor]:
    return {name: value.detach().float().cpu() for name, value in latents.items()}


def filled(value: float, like: Tensor) -> Tensor:
    """(B,) of one timestep, int64 or float32 as the kernel gives it."""
    return torch.full((len(like),), value, device=like.device)
