"""A run that stops and goes on from its checkpoint learns the same bits. How checkpoints are kept: the store's test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rayalign.learning.checkpoint import Checkpoint
from rayalign.learning.checkpoint_store import CheckpointStore
from rayalign.learning.learner import Learner
from rayalign.learning.optimizer_state import optimizer_arrays, restore_optimizer
from tests.learning.checkpoints import assert_same
from tests.learning.learners import learner_of
from tests.learning.tables import pairs


def fresh_learner(**groups: Any) -> Learner:
    return learner_of(start=None, train={"lr": 1e-2, "max_grad_norm": 1.0, "micro_batch": 3}, **groups)


def train(learner: Learner, *seeds: int) -> None:
    for seed in seeds:
        learner.add_ticket(pairs(learner.model, seed, ("kept",) * 4), last_of_step=True)
        learner.step()


def test_going_on_equals_never_stopping(tmp_path: Path) -> None:
    whole = fresh_learner()
    train(whole, 1, 2, 3, 4)
    first = fresh_learner()
    train(first, 1, 2)
    weights = first.model.weights
    store = CheckpointStore.at(str(tmp_path))
    store.save(Checkpoint(2, {}, weights.state(), weights.state("reference"), optimizer_arrays(first.optimizer)))
    found = store.load(2)
    second = fresh_learner()
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
