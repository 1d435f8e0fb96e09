"""Tables of rows made by hand, as a rollout actor would send them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from rayalign.models.text_to_image import TextToImage
from rayalign.records import EMBEDDINGS, pair_schema, tensor_column
from rayalign.rewards.statistics import Moments

PROMPTS = ("a cat", "a dog", "a horse")
STEPS = (19, 10, 2)
WIDTH = 6  # of an embedding


def pairs(
    model: TextToImage, seed: int, statuses: tuple[str, ...], rows: str = "stepwise", **columns: list[object]
) -> pa.Table:
    """One row for each status, with STEPS (0 of `clean` rows) and PROMPTS in turn. `columns` replace what is made."""
    draw, size, kernel = np.random.default_rng(seed), len(statuses), model.kernel
    steps = [0 if rows == "clean" else STEPS[row % 3] for row in range(size)]
    made: dict[str, object] = {name: tensor_column(draw.standard_normal((size, *model.latent_shape))) for name in _ALL}
    made |= {
        "sample": list(range(size)),
        "step": steps,
        "prompt": [PROMPTS[row % 3] for row in range(size)],
        "timestep": [kernel.timestep(step) if step else 0 for step in steps],
        "timestep_prev": [kernel.timestep_prev(step) if step else 0 for step in steps],
        "status": list(statuses),
        "guided": [False] * size,
        "advantage": draw.standard_normal(size),
        "log_prob": -1.5 + 0.1 * draw.standard_normal(size),
    }
    for name in ("iteration", "slot", "policy_version"):
        made[name] = [0] * size
    for name in ("reward_winner", "reward_loser", "final_reward"):
        made[name] = [0.0] * size
    for name in ("ticket_rollout_s", "ticket_scoring_s", "ticket_queued_s"):
        made[name] = [0.0] * size
    for name in ("scores_winner", "scores_loser", "final_scores"):
        made[name] = [[0.0]] * size
    made["ticket_scores"] = [Moments().packed()] * size
    made |= {"denoiser_calls": [25] * size, "trajectories": [1] * size}
    made |= columns
    schema = pair_schema(model.latent_shape, ["stub"], rows)
    arrays = [
        made[field.name] if isinstance(made[field.name], pa.Array) else pa.array(made[field.name], type=field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def embedded(table: pa.Table, seed: int) -> pa.Table:
    """With unit embeddings drawn from `seed`, as the annotate pool appends them."""
    draw = np.random.default_rng(seed)
    for name in EMBEDDINGS:
        values = draw.standard_normal((len(table), WIDTH))
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        flat = pa.array(values.astype(np.float32).reshape(-1))
        table = table.append_column(name, pa.FixedSizeListArray.from_arrays(flat, WIDTH))
    return table


_ALL = ("x_t", "winner", "loser", "x_t_loser")  # in the order drawn: pinned losses hang on it
