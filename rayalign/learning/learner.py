"""Rows -> loss -> optimiser step. Knows nothing of Ray: a benchmark on one GPU and a Ray Train worker both use it.

One optimiser step takes a fixed number of tickets from each worker. Losses are summed, and the gradient is divided
by the number of pairs kept on all workers together, so that dropped pairs and the number of workers change nothing.
"""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from typing import Any

import pyarrow as pa
import torch
from accelerate import Accelerator
from torch import Tensor

from rayalign.algorithms.reward_scale import snr_scale
from rayalign.config import RunConfig, TrainConfig
from rayalign.learning.batches import (
    PairBatch,
    blank,
    contrast_groups,
    count_statuses,
    kept_rows,
    micro_batches,
    to_batch,
)
from rayalign.learning.gathering import gather_rows
from rayalign.learning.guards import SkippedSteps, divergence
from rayalign.learning.meter import Meter
from rayalign.learning.noising import draw_noise, draw_timesteps, weights_by_step
from rayalign.learning.optimizer import make_optimizer
from rayalign.learning.reference import ReferenceRule
from rayalign.learning.views import RenoisedView, TransitionView, Winners
from rayalign.models.average import PolicyAverage
from rayalign.models.text_to_image import TextToImage
from rayalign.models.weight_sets import WeightArrays
from rayalign.records import SKIPPED_EMPTY, SKIPPED_GRADIENT, SKIPPED_LOSS, SKIPPED_OVERFLOW


def make_accelerator(config: TrainConfig, device: str) -> Accelerator:
    """Accelerate with this run's precision; on a CPU it is told so, since it would else look for a GPU."""
    on_cpu = device == "cpu"
    precision = config.mixed_precision
    if precision == "auto":
        precision = "no" if on_cpu else "bf16"
    return Accelerator(mixed_precision=precision, cpu=on_cpu)


class Learner:
    """The policy's optimiser, the reference's rule, and the sums of an iteration's metrics."""

    def __init__(self, model: TextToImage, config: RunConfig, accelerator: Accelerator) -> None:
        self.model, self.run, self.config, self.accelerator = model, config, config.train, accelerator
        self.objective, self.draws = config.objective, getattr(config.pairs, "draws", 1)
        self._on_policy = config.pairs.kind != "dataset"
        model.weights.unfuse()
        if config.train.gradient_checkpointing:
            model.denoiser.enable_gradient_checkpointing()  # type: ignore[operator]
        optimizer = make_optimizer(model.weights.parameters("policy"), config.train)
        model.trainable, self.optimizer = accelerator.prepare(model.denoiser, optimizer)
        self.reference = ReferenceRule(config.reference, model, self._mean_over_workers)
        decay = config.train.ema_decay
        self.average = None if decay is None else PolicyAverage(model.weights, decay)
        steps = config.pairs.steps_on(config.sampler.num_steps)
        # Finished images are drawn at their timestep by its probability; transitions weigh by it.
        self._weights = {0: 1.0} if config.pairs.rows == "clean" else weights_by_step(config.timesteps, steps)
        self.meter = Meter(config.objective.metrics)
        self.skipped = SkippedSteps(config.train)
        self._iteration = self._steps_made = 0  # where it is, for messages
        self._last_winners: Winners | None = None  # of the iteration, to measure the divergence on
        self._start_step()

    def _start_step(self) -> None:
        self._kept_in_step = self._bad_losses = 0
        self._winners: Winners | None = None

    def add_ticket(self, table: pa.Table, last_of_step: bool, position: int = 0) -> None:
        """Accumulates the gradient of one ticket's kept pairs. Workers exchange gradients on the last of a step.

        `position` counts this worker's tickets in the iteration: workers that contrast their pairs with one another
        draw their shared timestep by it.
        """
        started = time.perf_counter()
        self._iteration = table["iteration"][0].as_py()
        self.meter.count({f"pairs_{status}": count for status, count in count_statuses(table).items()})
        batches = self._micro_batches(table)
        for draw in range(self.draws):
            for number, batch in enumerate(batches):
                last = draw == self.draws - 1 and number == len(batches) - 1
                self._backward(batch, draw, position, exchange=last_of_step and last)
        if last_of_step and not batches:
            # Every worker must take part in the exchange: one dropped row that weighs nothing stands in.
            row = to_batch(table.slice(0, 1), self.model.kernel, self.model.device)
            self._backward(blank(row), 0, position, exchange=True)
            self.meter.count({"padding_calls": 1})
        self._kept_in_step += len(kept_rows(table)) * self.draws
        self.meter.training_s += time.perf_counter() - started

    def _micro_batches(self, table: pa.Table) -> list[PairBatch]:
        kernel, device = self.model.kernel, self.model.device
        if self.objective.gathers:
            # Dropped rows keep their place: every worker must make the same calls for the same shapes.
            whole = contrast_groups(table, len(table))
            return [blank(to_batch(rows, kernel, device)) for rows in whole]
        if self.objective.contrasts:
            groups = contrast_groups(kept_rows(table), self.config.micro_batch)
            return [to_batch(rows, kernel, device) for rows in groups]
        return micro_batches(kept_rows(table), self.config.micro_batch, kernel, device)

    def _backward(self, batch: PairBatch, draw: int, position: int, exchange: bool) -> None:
        waits = nullcontext() if exchange else self.accelerator.no_sync(self.model.trainable)
        with waits:
            view = self.view(batch, draw, position)
            loss_B, details = self.objective.losses(view)
            weight_B = self._weight(batch)
            self.accelerator.backward((weight_B * loss_B).sum())
        finite_B = loss_B.detach().isfinite()
        bad = int((batch.valid & ~finite_B).sum())
        self._bad_losses += bad
        self.meter.count({"loss_not_finite": bad})
        usable_B = batch.valid & finite_B  # a NaN would make the iteration's means NaN
        if usable_B.any():
            if not bad:
                self._winners = self._last_winners = view.winners()
            self.meter.add(loss_B, details, usable_B, self.model.kernel.to_unit(view.t_B))
            if view.log_ratio_B is not None:
                self.meter.add_ratios(view.log_ratio_B, usable_B)

    def _weight(self, batch: PairBatch) -> Tensor:
        """(B,): 0 for rows that only keep their place, else what the timestep weighs."""
        weights = torch.tensor([self._weights[step] for step in batch.steps], device=batch.valid.device)
        return weights * batch.valid

    def view(self, batch: PairBatch, draw: int = 0, position: int = 0) -> TransitionView | RenoisedView:
        """The micro-batch as the objective sees it; of finished images, re-noised by draw number `draw`."""
        kernel, seed = self.model.kernel, self.run.seed
        if batch.rows != "clean":
            return TransitionView(self.model, batch, batch.timestep, self._scale(batch.timestep), self._gather)
        keys = self._timestep_keys(batch, position)
        t_B = draw_timesteps(seed, keys, draw, self.run.timesteps, kernel, self.model.device)
        noise = draw_noise(seed, batch.keys, draw, batch.latents["winner"])
        return RenoisedView(self.model, batch, t_B, self._scale(t_B), self._gather, noise, self._on_policy)

    def _timestep_keys(self, batch: PairBatch, position: int) -> list[tuple[int, int, int]]:
        """One timestep a pair; one for all that are set against each other, over workers too."""
        if self.objective.gathers:
            return [(iteration, -1, position) for iteration, _, _ in batch.keys]
        if self.objective.contrasts:
            return [(iteration, slot, -1) for iteration, slot, _ in batch.keys]
        return batch.keys

    def _scale(self, t_B: Tensor) -> Tensor:
        if self.run.reward_scale == "constant":
            return torch.ones(len(t_B), device=t_B.device)
        return snr_scale(self.model.kernel.snr(t_B), self.model.kernel.snr_range())

    def _gather(self, values: Tensor) -> Tensor:
        return gather_rows(values, self.accelerator.process_index, self.accelerator.num_processes)

    def step(self) -> None:
        """One optimiser step on what was added, or none (`_skip_reason`), which is counted; all workers decide alike.

        Raises RunStopped after train.max_skipped_steps in a row whose loss or gradient was not finite.
        """
        started = time.perf_counter()
        added = self._reduce({"kept": self._kept_in_step, "bad_losses": self._bad_losses})
        kept, norm = int(added["kept"]), math.nan
        if kept:
            norm = self._clip(kept)
        reason = self._skip_reason(kept, int(added["bad_losses"]), norm)
        scaler = self.accelerator.scaler
        if reason is None or (kept and scaler is not None and not math.isfinite(norm)):
            # A float16 scaler skips an overflow itself, and only by being asked does it lower its scale.
            self.optimizer.step()
        elif kept and scaler is not None:
            scaler.update()  # a gradient that was unscaled and is not used: ready for the next
        self.optimizer.zero_grad()
        if reason is None:
            self.meter.stepped(norm)
            if self.average is not None:
                self.average.step()
            self.reference.after_step(self._winners)
        else:
            self.meter.skipped(reason, self._kept_in_step)
        self._start_step()
        self._steps_made += 1
        self.meter.training_s += time.perf_counter() - started
        self.skipped.note(reason, self._where())

    def rules(self) -> dict[str, Any]:
        """For a checkpoint: what its next steps depend on, beside weights, optimiser and reference."""
        scaler = self.accelerator.scaler
        return {"skipped": self.skipped.in_a_row, "scaler": None if scaler is None else scaler.state_dict()}

    def restore_rules(self, rules: dict[str, Any]) -> None:
        """What `rules` gave; nothing of a checkpoint from before there were any."""
        self.skipped.in_a_row = rules.get("skipped", 0)
        if self.accelerator.scaler is not None and rules.get("scaler"):
            self.accelerator.scaler.load_state_dict(rules["scaler"])

    def average_state(self) -> WeightArrays | None:
        """For a checkpoint; null where no average is kept."""
        return None if self.average is None else self.average.state()

    def restore_average(self, arrays: WeightArrays | None) -> None:
        """What a checkpoint holds; where it holds none (the run kept no average so far) one begins at the policy."""
        if self.average is None:
            return
        if arrays is not None:
            self.average.restore(arrays)
        else:
            self.average.begin()

    def _clip(self, kept: int) -> float:
        """Makes the gradient the mean over all workers' kept pairs, clips it, returns its norm before."""
        parameters = self.model.weights.parameters("policy")
        self.accelerator.unscale_gradients(self.optimizer)
        for parameter in parameters:
            assert parameter.grad is not None  # a pair was kept, so there was a backward pass
            # DDP has averaged over the workers; what is wanted is the mean over all kept pairs.
            parameter.grad.mul_(self.accelerator.num_processes / kept)
        return float(torch.nn.utils.clip_grad_norm_(parameters, self.config.max_grad_norm))

    def _skip_reason(self, kept: int, bad_losses: int, norm: float) -> str | None:
        """Why no step may be made, None if it may: the same on all workers, whoever met the number."""
        if not kept:
            return SKIPPED_EMPTY
        if bad_losses:
            return SKIPPED_LOSS
        # Workers hold the same gradient bit for bit after the exchange; should they ever not, none may step alone.
        if not self._reduce({"bad": float(not math.isfinite(norm))})["bad"]:
            return None
        scaler = self.accelerator.scaler
        # Above 1 the loss scale may itself be the cause; it halves at each overflow, so that this ends.
        return SKIPPED_OVERFLOW if scaler is not None and scaler.get_scale() > 1 else SKIPPED_GRADIENT

    def _where(self) -> str:
        steps = self.config.optimizer_steps
        return f"iteration {self._iteration + 1} of {self.run.iterations}, optimiser step {self._steps_made} of {steps}"

    def finish_iteration(self) -> tuple[dict[str, float], dict[str, int], float]:
        """(means over the iteration's kept pairs, counts, training seconds of this worker); starts the next."""
        calls = {f"{name}_calls": self.model.calls.pop(name, 0) for name in ("policy", "reference")}
        metrics, counts, seconds = self.meter.finish(calls, self._reduce, self.accelerator.num_processes)
        distance = divergence(self.model, self._last_winners, self._mean_over_workers)
        if distance is not None:
            metrics["guard/divergence"] = distance
        self._steps_made, self._last_winners = 0, None
        return metrics | self.reference.metrics(), counts, seconds

    def _reduce(self, values: dict[str, float]) -> dict[str, float]:
        """Sums over the workers, in one exchange."""
        packed = torch.tensor(list(values.values()), dtype=torch.float64, device=self.model.device)
        return dict(zip(values, self.accelerator.reduce(packed, "sum").tolist(), strict=True))

    def _mean_over_workers(self, total: float, count: int) -> float | None:
        found = self._reduce({"total": total, "count": float(count)})
        return found["total"] / found["count"] if found["count"] else None
