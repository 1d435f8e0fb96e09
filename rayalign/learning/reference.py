"""The reference model's rule: fixed, or a hard copy of the policy every few optimiser steps, behind a gate.

"Rethinking DPO in Diffusion Models", arXiv 2505.18736. Its regularisation is no term of the loss: the copy that would
be installed is measured on a few winners first, and past the limit the reference freezes (or starts again).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rayalign.algorithms.divergence import Gate, denoising_divergence, prediction_distance
from rayalign.config import CopiedReference, FixedReference
from rayalign.learning.views import Winners
from rayalign.models.text_to_image import TextToImage

Mean = Callable[[float, int], float | None]  # (sum, count) of this worker -> mean over all, None of none


class ReferenceRule:
    """Counts optimiser steps, copies and freezes. Its `state` goes into the checkpoint: a freeze survives a resume."""

    def __init__(self, config: FixedReference | CopiedReference, model: TextToImage, mean: Mean) -> None:
        self.config, self.model, self._mean = config, model, mean
        self.steps = self.copies = self.reinits = 0
        self.frozen_at: int | None = None  # optimiser step of the candidate that was past the limit
        self.divergence: float | None = None  # of the last candidate measured

    def after_step(self, winners: Winners | None) -> None:
        """One optimiser step was made; `winners` are of its last micro-batch (None where this worker kept none)."""
        self.steps += 1
        if not isinstance(self.config, CopiedReference) or self.frozen_at is not None:
            return
        if self.steps % self.config.every:
            return
        measured = self._measure(winners)
        if measured is None:
            return  # no worker kept a winner: the copy waits for the next period
        self.divergence = measured  # logged without a gate too, where it may grow without bound
        if self.config.max_divergence is not None:
            decision = Gate(self.config.max_divergence, self.config.on_exceed).decide(self.divergence)
            if decision == "freeze":
                self.frozen_at = self.steps
                return
            if decision == "reinit":
                self.model.weights.copy("initial", "reference")
                self.reinits += 1
                return
        self.model.weights.copy("policy", "reference")
        self.copies += 1

    @torch.no_grad()
    def _measure(self, winners: Winners | None) -> float | None:
        """Of the candidate, which is the policy, from the initial model; a mean over all workers' winners, if any."""
        if winners is None:
            return self._mean(0.0, 0)
        size, calls = self.config.num_winners, self.model.calls.copy()  # type: ignore[union-attr]
        x_t, t_B, text = winners.x_t[:size], winners.timestep[:size], winners.text[:size]
        candidate, initial = (self.model.denoise(x_t, t_B, text, name) for name in ("policy", "initial"))  # type: ignore[arg-type]
        if winners.target is None:
            found_B = prediction_distance(candidate, initial)
        else:
            found_B = denoising_divergence(candidate, initial, winners.target[:size])
        self.model.calls = calls  # no pair's, so they stand in no count of calls a pair
        return self._mean(float(found_B.sum()), len(found_B))

    @property
    def changes(self) -> int:
        """How often the reference became another: while it stays the same, so does the reference."""
        return self.copies + self.reinits

    def metrics(self) -> dict[str, float]:
        """What an iteration logs: nothing for a fixed reference."""
        if isinstance(self.config, FixedReference):
            return {}
        found = {"reference/copies": float(self.copies), "reference/frozen": float(self.frozen_at is not None)}
        if self.reinits:
            found["reference/reinits"] = float(self.reinits)
        if self.divergence is not None:
            found["reference/divergence"] = self.divergence
        if self.frozen_at is not None:
            found["reference/frozen_at_step"] = float(self.frozen_at)
        return found

    def state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _STATE}

    def restore(self, state: dict[str, Any]) -> None:
        for name in _STATE:
            setattr(self, name, state.get(name, getattr(self, name)))


_STATE = ("steps", "copies", "reinits", "frozen_at", "divergence")
