"""What a ticket drew -> the Arrow table that travels to the trainer. One row a drawn pair, dropped ones included."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import torch

from rayalign.records import CLEAN, LATENT_FAILED, Scores, Ticket, pair_schema, tensor_column
from rayalign.rewards.statistics import NO_SCORES, ByScorer, Moments
from rayalign.sampling.drawn import Drawn, Rows, finite_rows


def pair_table(
    drawn: Drawn, ticket: Ticket, version: int, scorers: list[str], kind: str, moments: ByScorer = NO_SCORES
) -> pa.Table:
    """The rows of one ticket, ordered by step, then sample; schema `records.pair_schema` for rows of `kind`.

    `moments`: of all that the ticket had scored (`ScoreTally`).
    """
    first = drawn.rows[0].latents
    shape = tuple(first["winner"].shape[1:])
    schema = pair_schema(shape, scorers, kind, annotated=CLEAN[0] in first)  # type: ignore[arg-type]
    whole: dict[str, object] = {
        "iteration": ticket.iteration,
        "slot": ticket.slot,
        "policy_version": version,
        "denoiser_calls": drawn.denoiser_calls,
        "trajectories": drawn.trajectories,
        "ticket_rollout_s": drawn.denoising_s,
        "ticket_scoring_s": drawn.scoring_s,
        "ticket_queued_s": drawn.queued_s,
        "ticket_scores": [value for name in scorers for value in moments.get(name, Moments()).packed()],
    }
    return pa.concat_tables([_step_rows(drawn, rows, whole, scorers, schema) for rows in drawn.rows])


def _step_rows(drawn: Drawn, rows: Rows, whole: dict[str, object], scorers: list[str], schema: pa.Schema) -> pa.Table:
    size = len(drawn.prompts)
    nothing = pa.nulls(size, pa.float32())  # not NaN, which no table equals
    columns: dict[str, object] = {name: [value] * size for name, value in whole.items()}
    columns |= {name: tensor_column(latents.numpy()) for name, latents in rows.latents.items()}
    columns |= {
        "sample": list(range(size)),
        "step": [rows.step] * size,
        "prompt": drawn.prompts,
        "timestep": [float(rows.timestep)] * size,
        "timestep_prev": [float(rows.timestep_prev)] * size,
        "advantage": nothing if rows.advantage_B is None else rows.advantage_B.astype(np.float32),
        "log_prob": nothing if rows.log_prob_B is None else rows.log_prob_B.astype(np.float32),
        "reward_winner": rows.winner.total_B.astype(np.float32),
        "reward_loser": rows.loser.total_B.astype(np.float32),
        "scores_winner": _per_scorer(rows.winner, scorers),
        "scores_loser": _per_scorer(rows.loser, scorers),
        "final_reward": drawn.final.total_B.astype(np.float32),
        "final_scores": _per_scorer(drawn.final, scorers),
        "status": _statuses(rows),
        "guided": rows.guided_B.tolist(),
    }
    arrays = [
        values if isinstance(values, pa.Array) else pa.array(values, type=field.type)
        for field, values in ((field, columns[field.name]) for field in schema)
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _statuses(rows: Rows) -> list[str]:
    """Each row's status; a latent that is not finite is the cause of whatever its score became, and is named first."""
    finite_B = torch.stack([finite_rows(latents) for latents in rows.latents.values()]).all(0)
    return [status if ok else LATENT_FAILED for status, ok in zip(rows.status, finite_B.tolist(), strict=True)]


def _per_scorer(scores: Scores, scorers: list[str]) -> pa.Array:
    """One list of scorer values a row, in the order of `scorers`."""
    values = np.stack([scores.parts[name] for name in scorers], 1).astype(np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1), type=pa.float32()), len(scorers))
