"""Learners on small models, for the tests of this folder."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import torch

from rayalign.config import RunConfig
from rayalign.learning.learner import Learner, make_accelerator
from rayalign.models.load import load_model
from tests.learning.tables import STEPS
from tests.toys import nudged

LR = 1e-3
# `pairs.kind` -> kind of its rows, and its settings with the steps of `tables.STEPS`.
SOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "stepwise": ("stepwise", {"tuned_steps": STEPS}),
    "trajectory": ("trajectory", {"steps": STEPS}),
    "final": ("clean", {}),
    "sample": ("sample", {"steps": STEPS}),
}


def run_of(path: str = "stub", source: str = "stepwise", **groups: Any) -> RunConfig:
    """Settings with pairs of `source`. `groups` of RunConfig, `pairs` without its kind and steps."""
    tree: dict[str, Any] = groups | {"model": {"path": path} | groups.get("model", {})}
    tree["pairs"] = {"kind": source} | SOURCES[source][1] | groups.get("pairs", {})
    tree["train"] = {"lr": LR, "max_grad_norm": 1e9, "micro_batch": 2} | groups.get("train", {})
    return RunConfig.model_validate(tree)


def learner_of(path: str = "stub", start: int | None = 1, source: str = "stepwise", **groups: Any) -> Learner:
    """On a model whose policy is `start`'s (None: still the reference)."""
    config = run_of(path, source, **groups)
    model = load_model(config, "cpu", ("policy", "reference"))
    if start is not None:
        model.weights.load("policy", nudged(model, start, scale=0.3 if path == "stub" else 0.02))
    return Learner(model, config, make_accelerator(config.train, "cpu"))


def step_on(learner: Learner, tables: list[pa.Table]) -> None:
    """One optimiser step."""
    for position, table in enumerate(tables):
        learner.add_ticket(table, last_of_step=position == len(tables) - 1, position=position)
    learner.step()


def parameters(learner: Learner) -> list[torch.Tensor]:
    return [value.detach().clone() for value in learner.model.weights.parameters("policy")]


def same_bits(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """Two weight sets."""
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
