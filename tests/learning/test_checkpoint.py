"""A run that stops and goes on from its checkpoint learns the same bits. How checkpoints are kept: the store's test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayalign.learning.checkpoint import Checkpoint
from rayalign.learning.checkpoint_store import CheckpointStore
from rayalign.learning.learner import Learner
from rayalign.learning.optimizer import optimizer_arrays, restore_optimizer, state_bytes
from tests.learning.checkpoints import assert_same
from tests.learning.learners import LR, learner_of
from tests.learning.tables import pairs


def fresh_learner(**train: Any) -> Learner:
    return learner_of(start=None, train={"lr": 1e-2, "max_grad_norm": 1.0, "micro_batch": 3} | train)


def train(learner: Learner, *seeds: int) -> None:
    for seed in seeds:
        learner.add_ticket(pairs(learner.model, seed, ("kept",) * 4), last_of_step=True)
        learner.step()


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
def test_going_on_equals_never_stopping(tmp_path: Path, optimizer: str) -> None:
    whole = fresh_learner(optimizer=optimizer)
    train(whole, 1, 2, 3, 4)
    first = fresh_learner(optimizer=optimizer)
    train(first, 1, 2)
    weights = first.model.weights
    store = CheckpointStore.at(str(tmp_path))
    store.save(Checkpoint(2, {}, weights.state(), weights.state("reference"), optimizer_arrays(first.optimizer)))
    found = store.load(2)
    second = fresh_learner(optimizer=optimizer)
    second.model.weights.load("policy", found.policy)
    second.model.weights.load("reference", found.reference)  # type: ignore[arg-type]
    restore_optimizer(second.optimizer, found.optimizer)
    assert_same(optimizer_arrays(second.optimizer), optimizer_arrays(first.optimizer))
    train(second, 3, 4)
    assert_same(second.model.weights.state(), whole.model.weights.state())
    assert_same(optimizer_arrays(second.optimizer), optimizer_arrays(whole.optimizer))


def test_the_learning_rate_is_the_runs_not_the_checkpoints() -> None:
    slow = fresh_learner()
    train(slow, 1)
    fast = learner_of(start=None, train={"lr": 0.5})
    restore_optimizer(fast.optimizer, optimizer_arrays(slow.optimizer))
    assert fast.optimizer.param_groups[0]["lr"] == 0.5


def test_adafactor_keeps_far_less_than_adam_and_moves_by_the_learning_rate() -> None:
    kept = {}
    for optimizer in ("adamw", "adafactor"):
        learner = learner_of("toy-sdxl", None, model={"tuning": {"kind": "full"}}, train={"optimizer": optimizer})
        before = learner.model.weights.state()
        train(learner, 1)
        found = optimizer_arrays(learner.optimizer).values()
        kept[optimizer] = sum(value.nbytes for value in found if value.ndim)
        assert kept[optimizer] == state_bytes(learner.model.weights.parameters("policy"), learner.config)
        after = learner.model.weights.state()
        moves = np.concatenate([(after[name] - before[name]).ravel() for name in after])
        # Each weight by lr times a sign at the first step, Adafactor's factored square root about that.
        assert np.sqrt(np.mean(moves**2)) == pytest.approx(LR, rel=0.3)
    assert kept["adafactor"] < 0.25 * kept["adamw"]  # a toy's matrices are small
