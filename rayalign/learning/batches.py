"""Rows of the pair stream -> tensors on the trainer's device. Dropped rows end here, after they were counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from rayalign.records import KEPT, STATUSES, tensor_values


@dataclass(frozen=True)
class PairBatch:
    """B kept pairs. Latents float32 (B, C, H, W); timesteps int64 (B,), `timestep_prev` < 0 at the clean end."""

    prompts: list[str]
    x_t: Tensor
    winner: Tensor
    loser: Tensor
    timestep: Tensor
    timestep_prev: Tensor

    def __len__(self) -> int:
        return len(self.prompts)


def count_statuses(table: pa.Table) -> Counter[str]:
    """Rows by what became of them, every known status included."""
    found = Counter(table["status"].to_pylist())
    return Counter({status: found.get(status, 0) for status in STATUSES})


def kept_rows(table: pa.Table) -> pa.Table:
    return table.filter(pc.equal(table["status"], KEPT))


def micro_batches(table: pa.Table, size: int, device: torch.device) -> list[PairBatch]:
    """Rows in order, `size` at a time (the last may be smaller)."""
    return [_to_batch(table.slice(start, size), device) for start in range(0, len(table), size)]


def blank(batch: PairBatch) -> PairBatch:
    """The same rows with zeros for latents: a dropped row may hold NaN, and NaN times weight 0 is NaN."""
    x_t, winner, loser = (torch.zeros_like(latents) for latents in (batch.x_t, batch.winner, batch.loser))
    return replace(batch, x_t=x_t, winner=winner, loser=loser)


def _to_batch(rows: pa.Table, device: torch.device) -> PairBatch:
    def latents(name: str) -> Tensor:
        # A copy: what Arrow hands out is the object store's own memory, which must never be written to.
        return torch.from_numpy(np.array(tensor_values(rows[name]))).to(device)

    def integers(name: str) -> Tensor:
        return torch.from_numpy(rows[name].to_numpy().astype(np.int64)).to(device)

    return PairBatch(
        prompts=rows["prompt"].to_pylist(),
        x_t=latents("x_t"),
        winner=latents("winner"),
        loser=latents("loser"),
        timestep=integers("timestep"),
        timestep_prev=integers("timestep_prev"),
    )
