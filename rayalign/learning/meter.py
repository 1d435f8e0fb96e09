"""An iteration's sums: loss and details over kept pairs, by tenth of the schedule too, counts, gradient norms."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor

from rayalign.records import SKIP_REASONS, STATUSES

TENTHS = 10
# What is logged for each tenth of the schedule (a diagnostic of arXiv 2505.18736): where the policy learns to tell
# winner from loser, and by how much.
BY_TENTH = ("implicit_reward", "accuracy")
Reduce = Callable[[dict[str, float]], dict[str, float]]


class Meter:
    """Sums of one worker; `finish` adds those of all workers, divides, and starts again."""

    def __init__(self, details: tuple[str, ...]) -> None:
        self._details = details
        self._start()

    def _start(self) -> None:
        self._sums: defaultdict[str, float] = defaultdict(float)
        self.training_s = self._largest_norm = 0.0

    def count(self, counts: dict[str, int]) -> None:
        for name, value in counts.items():
            self._sums[name] += value

    def add(self, loss_B: Tensor, details: dict[str, Tensor], valid_B: Tensor, unit_B: Tensor) -> None:
        """Rows with `valid_B`; `unit_B` says where in the schedule each lies, in [0, 1), 0 the cleanest."""
        self._sums["rows"] += float(valid_B.sum())
        for name, values_B in {"loss": loss_B.detach(), **details}.items():
            self._sums[name] += float(torch.where(valid_B, values_B, torch.zeros_like(values_B)).sum())
        tenth_B = (unit_B * TENTHS).long().clamp(0, TENTHS - 1)
        for tenth in tenth_B[valid_B].unique().tolist():
            chosen_B = valid_B & (tenth_B == tenth)
            self._sums[f"rows/{tenth}"] += float(chosen_B.sum())
            for name in BY_TENTH:
                if name in details:
                    self._sums[f"{name}/{tenth}"] += float(details[name][chosen_B].sum())

    def add_ratios(self, log_ratio_B: Tensor, valid_B: Tensor) -> None:
        """|log policy/reference| of rows with `valid_B`."""
        self._sums["rows_of_ratio"] += float(valid_B.sum())
        self._sums["log_ratio"] += float(torch.where(valid_B, log_ratio_B, torch.zeros_like(log_ratio_B)).sum())

    def stepped(self, grad_norm: float) -> None:
        """One optimiser step with this gradient norm, which all workers have alike."""
        self._sums["optimizer_steps"] += 1
        self._sums["grad_norm"] += grad_norm
        self._largest_norm = max(self._largest_norm, grad_norm)

    def skipped(self, reason: str, pairs: int) -> None:
        """One optimiser step was not made; `pairs` of this worker it would have been made on."""
        self._sums["skipped_steps"] += 1
        self._sums[f"skipped_steps_{reason}"] += 1
        self._sums["pairs_in_skipped_steps"] += pairs

    def finish(
        self, calls: dict[str, int], reduce: Reduce, workers: int
    ) -> tuple[dict[str, float], dict[str, int], float]:
        """(metrics, counts, training seconds of this worker)."""
        means, seconds = ("loss", *self._details), self.training_s
        by_tenth = [f"{name}/{tenth}" for name in ("rows", *BY_TENTH) for tenth in range(TENTHS)]
        names = (*means, *by_tenth, *COUNTS, *STEPS, "rows", "grad_norm", "log_ratio", "rows_of_ratio")
        total = reduce({name: float(self._sums[name]) for name in names} | {k: float(v) for k, v in calls.items()})
        rows = max(total["rows"], 1.0)
        metrics = {name: total[name] / rows for name in means}
        metrics["grad_norm"] = total["grad_norm"] / max(total["optimizer_steps"], 1.0)
        metrics["guard/grad_norm"] = self._largest_norm
        if total["rows_of_ratio"]:
            metrics["guard/log_ratio"] = total["log_ratio"] / total["rows_of_ratio"]
        for tenth in range(TENTHS):
            for name in BY_TENTH:
                if name in self._details and total[f"rows/{tenth}"]:
                    metrics[f"{name}_by_tenth/{tenth}"] = total[f"{name}/{tenth}"] / total[f"rows/{tenth}"]
        # Every worker counts each optimiser step once.
        counts = {name: round(total[name]) for name in (*COUNTS, *calls)}
        counts |= {name: round(total[name] / workers) for name in STEPS}
        self._start()
        return metrics, counts, seconds


COUNTS = (
    *(f"pairs_{status}" for status in STATUSES),
    "padding_calls",
    "loss_not_finite",  # pairs, of them no mean is taken
    "pairs_in_skipped_steps",
)
STEPS = ("optimizer_steps", "skipped_steps", *(f"skipped_steps_{reason}" for reason in SKIP_REASONS))
