from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayalign.errors import CheckpointError
from rayalign.learning.checkpoint import Checkpoint, iterations_done, latest, load, save
from rayalign.learning.learner import Learner
from rayalign.learning.optimizer_state import optimizer_arrays, restore_optimizer
from tests.learning.learners import learner_of
from tests.learning.tables import pairs


def example(done: int = 1, **changes: object) -> Checkpoint:
    draw = np.random.default_rng(done)
    arrays = [{"a.lora_A": draw.standard_normal((2, 3)).astype(np.float32)} for _ in range(2)]
    optimizer = {"0.step": np.array(3.0, dtype=np.float32), "0.exp_avg": np.ones((2, 3), dtype=np.float32)}
    rules = {"reference": {"steps": 8, "frozen_at": None, "divergence": 0.25}}
    return replace(Checkpoint(done, "0123", *arrays, optimizer, rules=rules), **changes)


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("previous", [None, {"a.lora_A": np.zeros((1, 2), dtype=np.float32)}])
def test_comes_back_bit_for_bit(tmp_path: Path, previous: dict[str, np.ndarray] | None) -> None:
    written = example(previous=previous)
    path = save(tmp_path, written, keep=3)
    assert path.name == "iteration-000001"
    found = load(path)
    assert (found.iterations_done, found.config_hash) == (1, "0123")
    for name in ("policy", "reference", "optimizer"):
        assert_same(getattr(found, name), getattr(written, name))
    assert (found.previous is None) == (previous is None)
    assert found.rules == {"reference": {"steps": 8, "frozen_at": None, "divergence": 0.25}}
    assert latest(tmp_path) == (path, [])
    assert (iterations_done(path), iterations_done(None)) == (1, 0)


def test_before_the_first_step_the_optimizer_is_empty(tmp_path: Path) -> None:
    assert load(save(tmp_path, example(optimizer={}), keep=1)).optimizer == {}


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for done in (1, 2, 9, 10):
        save(tmp_path, example(done), keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["iteration-000009", "iteration-000010"]
    assert iterations_done(latest(tmp_path)[0]) == 10


def test_written_again_the_second_stands(tmp_path: Path) -> None:
    save(tmp_path, example(), keep=3)
    path = save(tmp_path, example(config_hash="other"), keep=3)
    assert load(path).config_hash == "other"


def no_folder(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()


def flip(path: Path) -> None:
    file = path / "policy.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def truncate(path: Path) -> None:
    file = path / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-4])


def forget_a_file(path: Path) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["policy.safetensors"]
    (path / "manifest.json").write_text(json.dumps(manifest))
    (path / "policy.safetensors").unlink()


DAMAGES = {
    "empty folder": (no_folder, "manifest.json: .*No such file"),
    "no manifest": (lambda path: (path / "manifest.json").unlink(), "manifest.json: .*No such file"),
    "half a manifest": (lambda path: (path / "manifest.json").write_text('{"policy'), "manifest.json: "),
    "a manifest of something else": (lambda path: (path / "manifest.json").write_text("[]"), "does not name all of"),
    "a manifest that forgets": (forget_a_file, "does not name all of"),
    "a flipped byte": (flip, "policy.safetensors is not what was written"),
    "a short file": (truncate, "optimizer.safetensors is not what was written"),
    "a missing file": (lambda path: (path / "reference.safetensors").unlink(), "reference.safetensors is missing"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_passed_over_and_named(tmp_path: Path, damage: str) -> None:
    good, bad = save(tmp_path, example(1), keep=3), save(tmp_path, example(2), keep=3)
    harm, message = DAMAGES[damage]
    harm(bad)
    found, problems = latest(tmp_path)
    assert found == good
    assert len(problems) == 1
    assert "iteration-000002 is damaged" in problems[0]
    with pytest.raises(CheckpointError, match=message):
        load(bad)
    harm(good)
    found, problems = latest(tmp_path)
    assert (found, len(problems)) == (None, 2)


def test_what_a_dead_writer_left_does_not_count(tmp_path: Path) -> None:
    partial = tmp_path / ".iteration-000002.partial"
    partial.mkdir()
    (partial / "policy.safetensors").write_bytes(b"half")
    assert latest(tmp_path) == (None, [])
    assert latest(tmp_path / "nowhere") == (None, [])
    path = save(tmp_path, example(2), keep=3)
    assert latest(tmp_path) == (path, [])
    assert not partial.exists()


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
    state = Checkpoint(2, "0", weights.state(), weights.state("reference"), optimizer_arrays(first.optimizer))
    found = load(save(tmp_path, state, keep=1))
    second = fresh_learner()
    second.model.weights.load("policy", found.policy)
    second.model.weights.load("reference", found.reference)
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
