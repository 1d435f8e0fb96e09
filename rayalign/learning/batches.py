"""Rows of the pair stream -> tensors on the trainer's device. Dropped rows end here, after they were counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from rayalign.algorithms.kernel import Kernel
from rayalign.objectives.base import Embeddings, RowKind
from rayalign.records import EMBEDDINGS, KEPT, LATENTS, STATUSES, tensor_values


@dataclass(frozen=True)
class PairBatch:
    """B rows. Latents float32 (B, C, H, W) by column; timesteps as the kernel takes them, of transitions."""

    rows: RowKind
    prompts: list[str]
    latents: dict[str, Tensor]
    timestep: Tensor
    timestep_prev: Tensor
    steps: list[int]  # of the schedule, 0 for finished images
    keys: list[tuple[int, int, int]]  # (iteration, slot, sample): what a row's own draws are seeded by
    advantage: Tensor  # (B,), of `sample` rows
    log_prob: Tensor  # (B,), of `sample` rows, under the policy that drew them
    valid: Tensor  # bool (B,): False for rows that are no preference and only keep their place
    embeddings: Embeddings | None = None

    def __len__(self) -> int:
        return len(self.prompts)


def count_statuses(table: pa.Table) -> Counter[str]:
    """Rows by what became of them, every known status included."""
    found = Counter(table["status"].to_pylist())
    return Counter({status: found.get(status, 0) for status in STATUSES})


def kept_rows(table: pa.Table) -> pa.Table:
    return table.filter(pc.equal(table["status"], KEPT))


def micro_batches(table: pa.Table, size: int, kernel: Kernel, device: torch.device) -> list[PairBatch]:
    """Rows in order, `size` at a time (the last may be smaller)."""
    return [to_batch(table.slice(start, size), kernel, device) for start in range(0, len(table), size)]


def contrast_groups(table: pa.Table, size: int) -> list[pa.Table]:
    """Rows of one step together, `size` at most and in parts as equal as they can be: they are set against each other.

    Equal, since a part of one row has nobody to be set against.
    """
    groups = []
    steps = table["step"].to_numpy()
    for step in dict.fromkeys(steps.tolist()):
        rows = np.flatnonzero(steps == step)
        parts = np.array_split(rows, -(-len(rows) // size))
        groups += [table.take(pa.array(part)) for part in parts]
    return groups


def blank(batch: PairBatch) -> PairBatch:
    """The same rows with zeros where they are no preference: a dropped row may hold NaN, and NaN times 0 is NaN."""
    keep = batch.valid.reshape(-1, 1, 1, 1)
    latents = {name: torch.where(keep, value, torch.zeros_like(value)) for name, value in batch.latents.items()}
    advantage, log_prob = (
        torch.where(batch.valid, value, torch.zeros_like(value)) for value in (batch.advantage, batch.log_prob)
    )
    return replace(batch, latents=latents, advantage=advantage, log_prob=log_prob)


def to_batch(rows: pa.Table, kernel: Kernel, device: torch.device) -> PairBatch:
    """All of these rows."""
    kind: RowKind = rows.schema.metadata[b"rows"].decode()  # type: ignore[assignment]

    def floats(name: str) -> Tensor:
        return torch.from_numpy(rows[name].to_numpy().astype(np.float32)).to(device)

    def latents(name: str) -> Tensor:
        # A copy: what Arrow hands out is the object store's own memory, which must never be written to.
        return torch.from_numpy(np.array(tensor_values(rows[name]))).to(device)

    keys = zip(*(rows[name].to_pylist() for name in ("iteration", "slot", "sample")), strict=True)
    return PairBatch(
        rows=kind,
        prompts=rows["prompt"].to_pylist(),
        latents={name: latents(name) for name in LATENTS[kind]},
        timestep=kernel.as_timesteps(floats("timestep")),
        timestep_prev=kernel.as_timesteps(floats("timestep_prev")),
        steps=rows["step"].to_pylist(),
        keys=list(keys),
        advantage=floats("advantage"),
        log_prob=floats("log_prob"),
        valid=torch.tensor([status == KEPT for status in rows["status"].to_pylist()], device=device),
        embeddings=_embeddings(rows, device),
    )


def _embeddings(rows: pa.Table, device: torch.device) -> Embeddings | None:
    if EMBEDDINGS[0] not in rows.column_names:
        return None
    columns = (np.array(rows[name].to_pylist(), dtype=np.float32) for name in EMBEDDINGS)
    return Embeddings(*(torch.from_numpy(values).to(device) for values in columns))
