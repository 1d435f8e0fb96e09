"""Pairs -> loss -> optimiser step. Knows nothing of Ray: a benchmark on one GPU and a Ray Train worker both use it.

One optimiser step takes a fixed number of tickets from each worker. Losses are summed, and the gradient is divided
by the number of pairs kept on all workers together, so that dropped pairs and the number of workers change nothing.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from contextlib import nullcontext

import pyarrow as pa
import torch
from accelerate import Accelerator
from torch import Tensor

from rayalign.algorithms.tailorpo import tailorpo_loss
from rayalign.config import TrainConfig
from rayalign.learning.batches import PairBatch, blank, count_statuses, kept_rows, micro_batches
from rayalign.models.text_to_image import TextToImage


def make_accelerator(config: TrainConfig, device: str) -> Accelerator:
    """Accelerate with this run's precision; on a CPU it is told so, since it would else look for a GPU."""
    on_cpu = device == "cpu"
    precision = config.mixed_precision
    if precision == "auto":
        precision = "no" if on_cpu else "bf16"
    return Accelerator(mixed_precision=precision, cpu=on_cpu)


class Learner:
    """The policy's optimiser and the sums of an iteration's metrics."""

    def __init__(self, model: TextToImage, config: TrainConfig, accelerator: Accelerator) -> None:
        self.model, self.config, self.accelerator = model, config, accelerator
        model.weights.unfuse()
        if config.gradient_checkpointing:
            model.pipe.unet.enable_gradient_checkpointing()
        parameters = model.weights.parameters("policy")
        optimizer = torch.optim.AdamW(
            parameters,
            lr=config.lr,
            betas=config.betas,
            eps=config.adam_eps,
            weight_decay=config.weight_decay,
            foreach=False,
        )
        model.trainable, self.optimizer = accelerator.prepare(model.denoiser, optimizer)
        self._start_step()
        self._start_iteration()

    def _start_step(self) -> None:
        self._kept_in_step = 0

    def _start_iteration(self) -> None:
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._training_s = 0.0

    def add_ticket(self, table: pa.Table, last_of_step: bool) -> None:
        """Accumulates the gradient of one ticket's kept pairs. Workers exchange gradients on the last of a step."""
        started = time.perf_counter()
        for status, count in count_statuses(table).items():
            self._sums[f"pairs_{status}"] += count
        kept = kept_rows(table)
        batches = micro_batches(kept, self.config.micro_batch, self.model.device)
        for position, batch in enumerate(batches):
            self._backward(batch, weight=1.0, exchange=last_of_step and position == len(batches) - 1)
        if last_of_step and not batches:
            # Every worker must take part in the exchange: one dropped row with weight 0 stands in.
            self._backward(blank(micro_batches(table.slice(0, 1), 1, self.model.device)[0]), weight=0.0, exchange=True)
            self._sums["padding_calls"] += 1
        self._kept_in_step += len(kept)
        self._training_s += time.perf_counter() - started

    def _backward(self, batch: PairBatch, weight: float, exchange: bool) -> None:
        waits = nullcontext() if exchange else self.accelerator.no_sync(self.model.trainable)
        with waits:
            loss_B, details = self.losses(batch)
            self.accelerator.backward(weight * loss_B.sum())
        if weight:
            self._sums["loss"] += float(loss_B.detach().sum())
            for name, value in details.items():
                self._sums[name] += float(value.sum())

    def losses(self, batch: PairBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of each pair (B,), with one reference and one policy call for the pair."""
        model = self.model
        text = model.encode(batch.prompts)
        with torch.no_grad():
            reference = model.denoise(batch.x_t, batch.timestep, text, "reference")
        policy = model.denoise(batch.x_t, batch.timestep, text, "policy")
        steps = batch.x_t, batch.timestep, batch.timestep_prev
        mean_reference, std, _ = model.kernel.transition(reference, *steps)
        mean_policy, _, _ = model.kernel.transition(policy, *steps)
        return tailorpo_loss(
            batch.winner, batch.loser, mean_policy, mean_reference, std, self.config.beta, self.config.ratio_clip
        )

    def step(self) -> None:
        """One optimiser step on what was added. Skipped and counted if no pair was kept or a gradient is not finite."""
        started = time.perf_counter()
        kept = int(self._reduce({"kept": self._kept_in_step})["kept"])
        parameters = self.model.weights.parameters("policy")
        if kept:
            self.accelerator.unscale_gradients(self.optimizer)
            # DDP has averaged over the workers; what is wanted is the mean over all kept pairs.
            for parameter in parameters:
                assert parameter.grad is not None  # a pair was kept, so there was a backward pass
                parameter.grad.mul_(self.accelerator.num_processes / kept)
            norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.config.max_grad_norm))
        usable = kept and math.isfinite(norm)
        if usable or (kept and self.accelerator.scaler is not None):
            # A float16 scaler skips an overflow itself, and only by being asked does it lower its scale.
            self.optimizer.step()
        if usable:
            self._sums["grad_norm"] += norm
            self._sums["optimizer_steps"] += 1
        else:
            self._sums["skipped_steps"] += 1
        self.optimizer.zero_grad()
        self._start_step()
        self._training_s += time.perf_counter() - started

    def finish_iteration(self) -> tuple[dict[str, float], dict[str, int], float]:
        """(means over the iteration's kept pairs, counts, training seconds of the slowest worker); starts the next."""
        calls = {f"{name}_calls": self.model.calls.pop(name, 0) for name in ("policy", "reference")}
        seconds = self._training_s
        total = self._reduce({name: float(self._sums[name]) for name in _SUMMED} | calls)
        kept, workers = max(total["pairs_kept"], 1.0), self.accelerator.num_processes
        metrics = {name: total[name] / kept for name in _MEANS}
        metrics["grad_norm"] = total["grad_norm"] / max(total["optimizer_steps"], 1.0)
        # Every worker counts each optimiser step once.
        counts = {name: round(total[name]) for name in (*_COUNTS, *calls)}
        counts |= {name: round(total[name] / workers) for name in ("optimizer_steps", "skipped_steps")}
        self._start_iteration()
        return metrics, counts, seconds

    def _reduce(self, values: dict[str, float]) -> dict[str, float]:
        """Sums over the workers, in one exchange."""
        packed = torch.tensor(list(values.values()), dtype=torch.float64, device=self.model.device)
        return dict(zip(values, self.accelerator.reduce(packed, "sum").tolist(), strict=True))


_MEANS = ("loss", "implicit_reward", "accuracy", "log_ratio_winner", "log_ratio_loser")
_COUNTS = ("pairs_kept", "pairs_tie", "pairs_score_failed", "padding_calls")
_SUMMED = (*_MEANS, *_COUNTS, "grad_norm", "optimizer_steps", "skipped_steps")
