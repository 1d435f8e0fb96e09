"""Guards of training: steps that must not be taken, and numbers that a healthy run keeps small.

Decisions only, on numbers that every worker has alike: all of them skip, warn and stop together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from rayalign.algorithms.divergence import prediction_distance
from rayalign.config import GuardConfig, TrainConfig
from rayalign.errors import RunStopped
from rayalign.learning.views import Winners
from rayalign.models.text_to_image import TextToImage
from rayalign.records import SKIPPED_GRADIENT, SKIPPED_LOSS

Mean = Callable[[float, int], float | None]  # (sum, count) of this worker -> mean over all, None of none
NUM_WINNERS = 8  # of a worker's last pairs, that the divergence is measured on
MIN_HISTORY = 3  # iterations whose gradient norms make a median: below, one odd iteration would be the yardstick


class SkippedSteps:
    """Counts the steps in a row that a fault cost, and stops at the limit."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self.in_a_row = 0  # goes into the checkpoint

    def note(self, reason: str | None, where: str) -> None:
        """A step was made (None) or skipped. Raises RunStopped, saying what to try, at the limit.

        A step without pairs, or one that only lowered a loss scale, is neither a fault nor the end of a row of them.
        """
        if reason is None:
            self.in_a_row = 0
        if reason not in (SKIPPED_LOSS, SKIPPED_GRADIENT):
            return
        self.in_a_row += 1
        if self.in_a_row < self._config.max_skipped_steps:
            return
        config = self._config
        remedies = [f"a lower train.lr (now {config.lr:g})", "a lower objective.beta"]
        if config.mixed_precision != "no":
            safer = "bf16" if config.mixed_precision == "fp16" else "no"
            remedies.insert(0, f"train.mixed_precision = {safer} (now {config.mixed_precision})")
        raise RunStopped(
            f"{where}: the {reason} was not finite, the last of {self.in_a_row} such optimiser steps in a row "
            f"(train.max_skipped_steps = {config.max_skipped_steps}). They changed no weight. "
            f"Try {', or '.join(remedies)}"
        )


@dataclass(frozen=True)
class Alarm:
    """A guard's limit was passed."""

    guard: str  # grad_norm, log_ratio, divergence
    text: str  # what was measured, the limit, what to try


def told(iteration: int, alarms: list[Alarm]) -> str:
    """One line for the log; iterations count from 1, as the log's own lines do."""
    return f"iteration {iteration + 1}: " + "; ".join(alarm.text for alarm in alarms)


class Limits:
    """Compares an iteration's metrics with the limits of `guard`; each guard speaks once a run.

    Its `state` goes into the checkpoint: what was said is not said again after a resume.
    """

    def __init__(self, config: GuardConfig) -> None:
        self._config = config
        self._norms: list[float] = []
        self._said: list[str] = []

    def look(self, metrics: dict[str, float]) -> list[Alarm]:
        """The alarms of one iteration's metrics (`guard/...`)."""
        found = []
        for guard, (limit, unit) in self._limits().items():
            value = metrics.get(f"guard/{guard}", math.nan)
            if limit is not None and value > limit and guard not in self._said:
                self._said.append(guard)
                found.append(Alarm(guard, _TEXT[guard].format(value=value, limit=limit, unit=unit)))
        norm = metrics.get("guard/grad_norm", 0.0)
        if norm > 0:  # an iteration without a step has none
            self._norms.append(norm)
        return found

    def _limits(self) -> dict[str, tuple[float | None, str]]:
        """Guard -> (limit of what is measured, how it came about)."""
        config, usual = self._config, median(self._norms) if len(self._norms) >= MIN_HISTORY else None
        norm = None if config.grad_norm is None or usual is None else config.grad_norm * usual
        told = f"{config.grad_norm:g} times the median so far, {usual:.3g}" if norm is not None else ""
        return {"grad_norm": (norm, told), "log_ratio": (config.log_ratio, ""), "divergence": (config.divergence, "")}

    def state(self) -> dict[str, Any]:
        return {"norms": self._norms, "said": self._said}

    def restore(self, state: dict[str, Any]) -> None:
        self._norms, self._said = list(state.get("norms", [])), list(state.get("said", []))


@torch.no_grad()
def divergence(model: TextToImage, winners: Winners | None, mean: Mean) -> float | None:
    """How far the policy predicts from the initial model: mean square per latent element, over all workers' winners.

    None if no worker has a winner. Its denoiser calls stand in no count: they are no pair's.
    """
    if winners is None or not len(winners.x_t):
        return mean(0.0, 0)
    calls = model.calls.copy()
    x_t, t_B, text = winners.x_t[:NUM_WINNERS], winners.timestep[:NUM_WINNERS], winners.text[:NUM_WINNERS]
    policy, initial = (model.denoise(x_t, t_B, text, name) for name in ("policy", "initial"))  # type: ignore[arg-type]
    model.calls = calls
    found_B = prediction_distance(policy, initial)
    return mean(float(found_B.sum()), len(found_B))


_TEXT = {
    "grad_norm": "gradient norm {value:.3g} is past guard.grad_norm ({unit}); steps are clipped to "
    "train.max_grad_norm, but if this goes on lower train.lr",
    "log_ratio": "mean |log policy/reference| {value:.3g} is past guard.log_ratio = {limit:g}: the policy has run from "
    "its reference; lower train.lr, raise objective.beta, or stop earlier",
    "divergence": "the policy's predictions are {value:.3g} (mean square) from the initial model's, past "
    "guard.divergence = {limit:g}: look at the pictures; lower train.lr, or stop earlier",
}
