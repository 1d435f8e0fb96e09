"""Which rows of a preference set a ticket takes, and the table it makes of them: the offline pair source."""

from __future__ import annotations

import random
from functools import lru_cache

import numpy as np
import pyarrow as pa

from rayalign.config import RunConfig
from rayalign.data.latents import LatentRows
from rayalign.data.preferences import PreferenceIndex, epoch_order, num_rows
from rayalign.records import CAPTION, Ticket, derive_seed, pair_schema, tensor_column
from rayalign.rewards.statistics import Moments


def ticket_rows(index: PreferenceIndex, ticket: Ticket, count: int, seed: int) -> list[int]:
    """Row numbers of a ticket: a pure function of (seed, iteration, slot). Epochs follow each other without a seam."""
    total = num_rows(index)
    order = _orders(tuple(index.group_rows), seed)
    positions = range(ticket.number * count, (ticket.number + 1) * count)
    return [int(order(position // total)[position % total]) for position in positions]


@lru_cache(maxsize=4)
def _orders(group_rows: tuple[int, ...], seed: int):  # type: ignore[no-untyped-def]
    @lru_cache(maxsize=2)  # a ticket may span the end of one epoch and the start of the next
    def order(epoch: int) -> np.ndarray:
        return epoch_order(group_rows, seed, epoch)

    return order


def clean_table(rows: LatentRows, numbers: list[int], ticket: Ticket, config: RunConfig, seconds: float) -> pa.Table:
    """The rows of one ticket in the schema of the pair stream. There are no scores: the set has the preference."""
    size, scorers = len(numbers), config.scorer_names
    schema = pair_schema(rows.winner.shape[1:], scorers, "clean")  # type: ignore[arg-type]
    share = config.pairs.empty_prompt_share  # type: ignore[union-attr]
    draws = [random.Random(derive_seed(config.seed, "empty", ticket.number, place)) for place in range(size)]
    nothing = np.full(size, np.nan, dtype=np.float32)
    unscored = [[float("nan")] * len(scorers)] * size
    columns: dict[str, object] = {
        "iteration": [ticket.iteration] * size,
        "slot": [ticket.slot] * size,
        "sample": list(range(size)),
        "step": [0] * size,
        # Of no policy: the set is as old as it was at the start, so it has no lag.
        "policy_version": [ticket.iteration] * size,
        "prompt": ["" if draw.random() < share else text for draw, text in zip(draws, rows.prompts, strict=True)],
        "timestep": [0.0] * size,
        "timestep_prev": [0.0] * size,
        "winner": tensor_column(rows.winner),
        "loser": tensor_column(rows.loser),
        "status": rows.status,
        "guided": [False] * size,
        "denoiser_calls": [0] * size,
        "trajectories": [0] * size,
        "ticket_rollout_s": [seconds] * size,
        "ticket_scoring_s": [0.0] * size,
        "ticket_queued_s": [0.0] * size,
        "ticket_scores": [[value for _ in scorers for value in Moments().packed()]] * size,
    }
    columns |= dict.fromkeys(("advantage", "log_prob", "reward_winner", "reward_loser", "final_reward"), nothing)
    columns |= dict.fromkeys(("scores_winner", "scores_loser", "final_scores"), unscored)
    arrays = [
        values if isinstance(values, pa.Array) else pa.array(values, type=field.type)
        for field, values in ((field, columns[field.name]) for field in schema)
    ]
    table = pa.Table.from_arrays(arrays, schema=schema)
    if config.objective.embeds_with is not None:
        table = table.append_column(CAPTION, pa.array(rows.prompts, type=pa.string()))
    return table
