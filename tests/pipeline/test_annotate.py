"""The annotate pool's actor, called without Ray."""

from __future__ import annotations

import numpy as np

from rayalign.config import RunConfig
from rayalign.data.latents import LatentRows
from rayalign.data.tickets import clean_table
from rayalign.pipeline.annotate import AnnotateActor
from rayalign.records import EMBEDDINGS, Ticket

PROMPTS = ["a red circle", "a blue square", "a green ring"]


def test_a_pair_trained_with_the_empty_prompt_is_contrasted_by_its_own_caption() -> None:
    latents = np.random.default_rng(0).standard_normal((2, 3, 4, 8, 8), dtype=np.float32)
    rows = LatentRows(PROMPTS, ["kept"] * 3, *latents)

    def annotated(share: float) -> tuple[list[str], np.ndarray, list[str]]:
        tree = {"model": {"path": "toy-sdxl"}, "objective": {"kind": "rpo", "embedder": "toy-clip"}}
        pairs = {"kind": "dataset", "path": "somewhere", "empty_prompt_share": share}
        config = RunConfig.model_validate(tree | {"pairs": pairs})
        ticket = Ticket(0, 1)
        table = AnnotateActor(config)(clean_table(rows, [0, 1, 2], ticket, config, 0.0))
        return table["prompt"].to_pylist(), np.array(table[EMBEDDINGS[0]].to_pylist()), table.column_names

    prompts, embedded, names = annotated(0.999)
    assert prompts == ["", "", ""]
    assert "caption" not in names
    plain, expected, _ = annotated(0.0)
    assert plain == PROMPTS
    np.testing.assert_array_equal(embedded, expected)
    assert len(np.unique(expected.round(3), axis=0)) == 3
