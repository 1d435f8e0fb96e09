"""Everything that crosses a process, with shapes, dtypes and units.

Shape letters: B samples of a ticket, K candidates, S scorers, C H W latent channels, height, width.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

# What became of a drawn pair. Dropped pairs keep their row, so that every ticket has the same number of rows
# (the split over train workers needs that) and nothing is lost uncounted.
KEPT = "kept"
TIE = "tie"
SCORE_FAILED = "score_failed"
STATUSES = (KEPT, TIE, SCORE_FAILED)


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that is a pure function of `parts` (run seed, purpose, iteration, slot, sample, ...)."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@dataclass(frozen=True)
class Ticket:
    """A numbered micro-batch of generation. Every random draw it makes is a function of (run seed, iteration, slot)."""

    number: int
    tickets_per_iteration: int

    @property
    def iteration(self) -> int:
        return self.number // self.tickets_per_iteration

    @property
    def slot(self) -> int:
        return self.number % self.tickets_per_iteration

    def policy_version(self, max_lag: int) -> int:
        """The one version this ticket samples from. Version v is the policy after v trained iterations."""
        return max(0, self.iteration - max_lag)


@dataclass(frozen=True)
class Scores:
    """What scoring B images gave. `total_B` is the weighted sum that ranks; a failed entry holds NaN everywhere."""

    total_B: np.ndarray  # float32 (B,)
    parts: dict[str, np.ndarray]  # scorer name -> float32 (B,), in the scorer's own scale
    seconds: float = 0.0  # wall time from the call to the answer

    @property
    def failed_B(self) -> np.ndarray:
        """bool (B,): no usable score (error after retries, NaN or infinity)."""
        return ~np.isfinite(self.total_B)


@dataclass(frozen=True)
class Canary:
    """What the trainer's denoiser does on a fixed input, so that a rollout actor can prove that it does the same."""

    amplification: float  # factor on the LoRA while the canary runs, so that small updates show
    base: np.ndarray  # float32 (1, C, H, W): answer with the adapter off
    delta: np.ndarray  # float32 (1, C, H, W): answer with the amplified adapter, minus `base`


@dataclass(frozen=True)
class PublishedWeights:
    """One policy version as rank 0 publishes it; the arrays themselves travel through the object store."""

    version: int
    checksum: str  # blake2b over names, shapes, dtypes and bytes
    canary: Canary
    num_bytes: int


@dataclass(frozen=True)
class IterationRecord:
    """One trained iteration: what the driver logs, plots and sums up."""

    iteration: int
    version: int  # the policy version that training it produced
    metrics: dict[str, float]  # loss, accuracy, implicit_reward, grad_norm, reward/<scorer>, ...
    counts: dict[str, int]  # pairs_kept, pairs_tie, pairs_score_failed, denoiser_calls, policy_calls, ...
    seconds: dict[str, float]  # rollout, scoring, training, waiting, sync
    lag_max: int  # policy versions between drawing and training, the largest in the iteration
    extra: dict[str, Any] = field(default_factory=dict)


def pair_schema(latent_shape: tuple[int, int, int], scorers: list[str]) -> pa.Schema:
    """The Arrow schema of the pair stream: one row is one pair, drawn at one tuned step of one trajectory.

    `latent_shape` is (C, H, W). `step` counts from the number of sampling steps (noisiest) to 1; `timestep` and
    `timestep_prev` are training timesteps (`timestep_prev` < 0 means the clean end). `scores_*` hold one float per
    scorer, in the order of the schema's metadata key `scorers`. `final_*` belong to the trajectory's finished image.
    `ticket_*` describe the whole ticket and repeat on each of its rows.
    """
    latent = pa.fixed_shape_tensor(pa.float32(), latent_shape)
    per_scorer = pa.list_(pa.float32(), len(scorers))
    fields = [
        ("iteration", pa.int32()),
        ("slot", pa.int32()),
        ("sample", pa.int32()),
        ("step", pa.int32()),
        ("policy_version", pa.int32()),
        ("prompt", pa.string()),
        ("timestep", pa.int32()),
        ("timestep_prev", pa.int32()),
        ("x_t", latent),
        ("winner", latent),
        ("loser", latent),
        ("reward_winner", pa.float32()),
        ("reward_loser", pa.float32()),
        ("scores_winner", per_scorer),
        ("scores_loser", per_scorer),
        ("final_reward", pa.float32()),
        ("final_scores", per_scorer),
        ("status", pa.string()),
        ("guided", pa.bool_()),
        ("denoiser_calls", pa.int32()),
        ("ticket_rollout_s", pa.float32()),
        ("ticket_scoring_s", pa.float32()),
    ]
    return pa.schema([pa.field(name, kind) for name, kind in fields], metadata={"scorers": ",".join(scorers)})


def tensor_column(values: np.ndarray) -> pa.Array:
    """(N, C, H, W) float32 -> an Arrow fixed-shape tensor column of N rows."""
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values, dtype=np.float32))


def tensor_values(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """An Arrow fixed-shape tensor column of N rows -> (N, C, H, W). Read-only: never write into it."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    return array.to_numpy_ndarray()
