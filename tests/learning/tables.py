"""Tables of pairs made by hand, as a rollout actor would send them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from rayalign.models.text_to_image import TextToImage
from rayalign.records import pair_schema, tensor_column

PROMPTS = ("a cat", "a dog", "a horse")


def pairs(model: TextToImage, seed: int, statuses: tuple[str, ...], **columns: list[object]) -> pa.Table:
    """One row for each status, with the tuned steps 19, 10, 2 and prompts in turn. `columns` replace what is made."""
    draw, size, kernel = np.random.default_rng(seed), len(statuses), model.kernel
    steps = [(19, 10, 2)[row % 3] for row in range(size)]

    def latents() -> pa.Array:
        return tensor_column(draw.standard_normal((size, *model.latent_shape)))

    made: dict[str, object] = {
        "sample": list(range(size)),
        "step": steps,
        "prompt": [PROMPTS[row % 3] for row in range(size)],
        "timestep": [kernel.timestep(step) for step in steps],
        "timestep_prev": [kernel.timestep_prev(step) for step in steps],
        "x_t": latents(),
        "winner": latents(),
        "loser": latents(),
        "status": list(statuses),
        "guided": [False] * size,
    }
    for name in ("iteration", "slot", "policy_version"):
        made[name] = [0] * size
    for name in ("reward_winner", "reward_loser", "final_reward", "ticket_rollout_s", "ticket_scoring_s"):
        made[name] = [0.0] * size
    for name in ("scores_winner", "scores_loser", "final_scores"):
        made[name] = [[0.0]] * size
    made["denoiser_calls"] = [25] * size
    made |= columns
    schema = pair_schema(model.latent_shape, ["stub"])
    arrays = [
        made[field.name] if isinstance(made[field.name], pa.Array) else pa.array(made[field.name], type=field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)
