"""Trajectories -> the Arrow table that travels to the trainer. One row a drawn pair, dropped ones included."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from rayalign.records import KEPT, SCORE_FAILED, TIE, Scores, Ticket, pair_schema, tensor_column
from rayalign.sampling.stepwise import StepPairs, Trajectories


def pair_table(drawn: Trajectories, ticket: Ticket, version: int, scorers: list[str]) -> pa.Table:
    """The rows of one ticket (B x S), ordered by step, then sample; schema `records.pair_schema`."""
    shape = tuple(drawn.pairs[0].x_t.shape[1:])
    schema = pair_schema(shape, scorers)  # type: ignore[arg-type]
    whole: dict[str, object] = {
        "iteration": ticket.iteration,
        "slot": ticket.slot,
        "policy_version": version,
        "guided": False,
        "denoiser_calls": drawn.denoiser_calls,
        "ticket_rollout_s": drawn.denoising_s,
        "ticket_scoring_s": drawn.scoring_s,
    }
    return pa.concat_tables([_step_rows(drawn, pairs, whole, scorers, schema) for pairs in drawn.pairs])


def _step_rows(
    drawn: Trajectories, pairs: StepPairs, whole: dict[str, object], scorers: list[str], schema: pa.Schema
) -> pa.Table:
    size = len(drawn.prompts)
    winner, loser = pairs.pairing.winner.numpy(), pairs.pairing.loser.numpy()
    columns: dict[str, object] = {name: [value] * size for name, value in whole.items()}
    columns |= {
        "sample": list(range(size)),
        "step": [pairs.step] * size,
        "prompt": drawn.prompts,
        "timestep": [pairs.timestep] * size,
        "timestep_prev": [pairs.timestep_prev] * size,
        "x_t": tensor_column(pairs.x_t.numpy()),
        "winner": tensor_column(pairs.winner.numpy()),
        "loser": tensor_column(pairs.loser.numpy()),
        "reward_winner": _chosen([s.total_B for s in pairs.scores_BK], winner),
        "reward_loser": _chosen([s.total_B for s in pairs.scores_BK], loser),
        "scores_winner": _per_scorer(pairs.scores_BK, winner, scorers),
        "scores_loser": _per_scorer(pairs.scores_BK, loser, scorers),
        "final_reward": drawn.final.total_B,
        "final_scores": _per_scorer([drawn.final], np.zeros(size, dtype=np.int64), scorers),
        "status": [_status(tie, failed) for tie, failed in zip(pairs.pairing.tie, pairs.pairing.failed, strict=True)],
    }
    arrays = [
        values if isinstance(values, pa.Array) else pa.array(values, type=field.type)
        for field, values in ((field, columns[field.name]) for field in schema)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _status(tie: object, failed: object) -> str:
    return SCORE_FAILED if failed else TIE if tie else KEPT


def _chosen(values_KB: list[np.ndarray], chosen_B: np.ndarray) -> np.ndarray:
    return np.stack(values_KB)[chosen_B, np.arange(len(chosen_B))].astype(np.float32)


def _per_scorer(scores_K: list[Scores], chosen_B: np.ndarray, scorers: list[str]) -> pa.Array:
    """One list of scorer values a row, in the order of `scorers`."""
    values = np.stack([_chosen([s.parts[name] for s in scores_K], chosen_B) for name in scorers], 1)
    flat = pa.array(values.reshape(-1), type=pa.float32())
    return pa.FixedSizeListArray.from_arrays(flat, len(scorers))
