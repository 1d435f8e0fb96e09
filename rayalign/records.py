"""Everything that crosses a process, with shapes, dtypes and units.

Shape letters: B samples of a ticket, K candidates, S scorers, C H W latent channels, height, width.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

# What became of a drawn pair. Dropped pairs keep their row, so that every ticket has the same number of rows
# (the split over train workers needs that) and nothing is lost uncounted.
KEPT = "kept"
TIE = "tie"
SMALL_GAP = "small_gap"  # rewards closer than pairs.min_gap
SCORE_FAILED = "score_failed"  # for whatever reason; in the pair stream by the reason, where the scoring gives one:
UNSCORED_STATUSES = (
    SCORE_FAILED,
    "score_timeout",
    "score_raised",
    "score_not_finite",
    "score_wrong_length",
    "score_replica_died",
    "score_unserved",  # the service itself failed
)
LATENT_FAILED = "latent_failed"  # a latent of it is NaN or infinite: the denoiser gave no picture to score
UNLABELLED = "unlabelled"  # a row of a dataset without a preference
BROKEN = "broken"  # a row of a dataset that makes no sense; in the pair stream by what is wrong with it:
BROKEN_STATUSES = ("broken_caption", "broken_image", "broken_labels", "broken_line")
STATUSES = (KEPT, TIE, SMALL_GAP, *UNSCORED_STATUSES, LATENT_FAILED, UNLABELLED, *BROKEN_STATUSES)

# Why an optimiser step was not made. The first two are faults: a number was NaN or infinite.
SKIPPED_LOSS = "loss"
SKIPPED_GRADIENT = "gradient"
SKIPPED_EMPTY = "empty"  # no pair was kept
SKIPPED_OVERFLOW = "overflow"  # float16's loss scale was too large, and has been lowered
SKIP_REASONS = (SKIPPED_LOSS, SKIPPED_GRADIENT, SKIPPED_EMPTY, SKIPPED_OVERFLOW)


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
    reason_B: np.ndarray | None = None  # str (B,): one of UNSCORED_STATUSES, "" where there is a score; None: not said
    queued_s: float = 0.0  # of `seconds`, held back by service.max_queued

    @property
    def unscored_B(self) -> np.ndarray:
        """str (B,): `reason_B`, or SCORE_FAILED where nobody said why."""
        if self.reason_B is not None:
            return self.reason_B
        return np.where(self.failed_B, SCORE_FAILED, "").astype(object)

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


class Standard(NamedTuple):
    """How a scorer's answers are put on a common scale before they are weighted: (score - mean) / std."""

    mean: float
    std: float


@dataclass(frozen=True)
class PublishedWeights:
    """One policy version as rank 0 publishes it; the arrays themselves travel through the object store."""

    version: int
    checksum: str  # blake2b over names, shapes, dtypes and bytes
    canary: Canary
    num_bytes: int
    # Of the standardised scorers, from all that was scored before this version: whoever draws from it uses these.
    standards: dict[str, Standard] = field(default_factory=dict)


@dataclass(frozen=True)
class HeldOut:
    """What a small fixed set of held-out prompts and seeds looks like under one policy version; means over images."""

    version: int
    reward: float  # weighted sum of the guiding scorers; NaN where every score failed, as below
    scores: dict[str, float]  # by scorer, guiding and held-out, each in its own scale
    statistics: dict[str, float]  # of `evaluation.drift`: edge_density, saturation, colour_entropy, diversity
    num_images: int
    num_failed: int  # scores that failed, of all scorers together
    seconds: float
    by_prompt: dict[str, list[float]] = field(default_factory=dict)  # name of `metrics` -> mean of each prompt's images

    def metrics(self) -> dict[str, float]:
        """As curves: heldout/reward, heldout/<scorer>, image/<statistic>."""
        return (
            {"heldout/reward": self.reward}
            | {f"heldout/{name}": value for name, value in self.scores.items()}
            | {f"image/{name}": value for name, value in self.statistics.items()}
        )


@dataclass(frozen=True)
class IterationRecord:
    """One trained iteration: what the driver logs, plots and sums up."""

    iteration: int
    version: int  # the policy version that training it produced
    metrics: dict[str, float]  # loss, accuracy, implicit_reward, grad_norm, reward/<scorer>, ...
    counts: dict[str, int]  # pairs_kept, pairs_tie, pairs_score_raised, denoiser_calls, policy_calls, ...
    seconds: dict[str, float]  # rollout, scoring, queued, training, waiting, sync, probe; wall
    lag_max: int  # policy versions between drawing and training, the largest in the iteration
    # constant: scorer -> [its only answer, images, different ones at least]; heldout, heldout_start: a HeldOut each, of
    # this version and of version 0
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """As people count, and as checkpoints are named: the first is 1."""
        return self.iteration + 1


# Latent columns by what a row is. stepwise: both drawn from one x_t. trajectory: each from its own. clean: finished
# images. sample: one transition of one trajectory (x_t to winner), without a loser.
LATENTS = {
    "stepwise": ("x_t", "winner", "loser"),
    "trajectory": ("x_t", "x_t_loser", "winner", "loser"),
    "clean": ("winner", "loser"),
    "sample": ("x_t", "winner"),
}
MOMENTS = 6  # count, mean, sum of squared deviations, lowest, highest, images as bits
# What the annotate pool adds where the objective compares prompts and images: unit CLIP embeddings.
EMBEDDINGS = ("embedding_prompt", "embedding_winner", "embedding_loser")
# Where it does, the clean images of step-wise candidates travel to it as latents, and end there.
CLEAN = ("clean_winner", "clean_loser")
# So do the captions of a set's pairs: one trained with the empty prompt is contrasted by its own caption.
CAPTION = "caption"


def pair_schema(
    latent_shape: tuple[int, int, int], scorers: list[str], rows: str = "stepwise", annotated: bool = False
) -> pa.Schema:
    """The Arrow schema of the pair stream: one row is one pair (of `sample` rows one transition).

    `latent_shape` is (C, H, W). `step` counts from the number of sampling steps (noisiest) to 1, 0 for clean pairs,
    which have no timestep of their own; `timestep` and `timestep_prev` are those the kernel of the model knows.
    `scores_*` hold one float per scorer, in the order of the schema's metadata key `scorers`. `final_*` belong to the
    trajectory's finished image (the winner's, where there are several). `denoiser_calls` and `trajectories` are those
    of the row's sample, all its candidates together; `ticket_*` describe the whole ticket and repeat on each row;
    `ticket_scores` holds, scorer by scorer, the MOMENTS of everything that the ticket had scored.
    `annotated`: the clean latents that the annotate pool embeds are there.
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
        ("timestep", pa.float32()),
        ("timestep_prev", pa.float32()),
        *((name, latent) for name in LATENTS[rows]),
        *((name, latent) for name in (CLEAN if annotated and rows != "clean" else ())),
        ("advantage", pa.float32()),
        ("log_prob", pa.float32()),
        ("reward_winner", pa.float32()),
        ("reward_loser", pa.float32()),
        ("scores_winner", per_scorer),
        ("scores_loser", per_scorer),
        ("final_reward", pa.float32()),
        ("final_scores", per_scorer),
        ("status", pa.string()),
        ("guided", pa.bool_()),
        ("denoiser_calls", pa.int32()),
        ("trajectories", pa.int32()),
        ("ticket_rollout_s", pa.float32()),
        ("ticket_scoring_s", pa.float32()),
        ("ticket_queued_s", pa.float32()),
        ("ticket_scores", pa.list_(pa.float64(), MOMENTS * len(scorers))),
    ]
    metadata = {"scorers": ",".join(scorers), "rows": rows}
    return pa.schema([pa.field(name, kind) for name, kind in fields], metadata=metadata)


def tensor_column(values: np.ndarray) -> pa.Array:
    """(N, C, H, W) float32 -> an Arrow fixed-shape tensor column of N rows."""
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values, dtype=np.float32))


def tensor_values(column: pa.ChunkedArray | pa.Array) -> np.ndarray:
    """An Arrow fixed-shape tensor column of N rows -> (N, C, H, W). Read-only: never write into it."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0)
    return array.to_numpy_ndarray()
