"""`train.ema_decay` all the way: the learner's steps, a checkpoint, a learner that goes on from it, and the export."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from rayalign.commands.main import main
from rayalign.learning.checkpoint import Checkpoint
from rayalign.learning.checkpoint_store import CheckpointStore
from rayalign.learning.learner import Learner
from rayalign.models.weight_sets import WeightArrays
from tests.learning.learners import learner_of, same_bits, step_on
from tests.learning.tables import pairs

DECAY = 0.2  # above (1 + n) / (10 + n) after one step, below it after two
TOY = "toy-sd15"


def learner_with(folder: Path, decay: float | None = DECAY) -> Learner:
    return learner_of(TOY, train={"ema_decay": decay}, output=str(folder), name="first")


def stepped(learner: Learner, seed: int) -> WeightArrays:
    """The policy after one more optimiser step."""
    step_on(learner, [pairs(learner.model, seed, ["kept"] * 2)])
    return learner.model.weights.state("policy")


def saved(learner: Learner, done: int) -> CheckpointStore:
    """The run's folder and a checkpoint in it, as a train worker writes one."""
    config = learner.run
    config.folder.mkdir(parents=True, exist_ok=True)
    (config.folder / "config.yaml").write_text(config.to_yaml())
    store, policy = CheckpointStore.at(config.checkpoint_root), learner.model.weights.state("policy")
    store.save(Checkpoint(done, config.model_dump(mode="json"), policy, policy, {}, ema=learner.average_state()))
    return store


def test_the_exported_average_is_that_of_the_policys_steps(tmp_path: Path) -> None:
    learner = learner_with(tmp_path)
    policies = [stepped(learner, seed) for seed in (1, 2)]
    store = saved(learner, 1)
    resumed = learner_with(tmp_path)
    resumed.model.weights.load("policy", store.policy(1))
    resumed.restore_average(store.load(1).ema)
    # Other moments in Adam make it another policy than `learner`'s, which the average must follow all the same.
    policies.append(stepped(resumed, 3))
    store = saved(resumed, 2)

    wanted = policies[0]  # the first step takes the policy whole
    for step, policy in enumerate(policies[1:], 1):
        decay = min(DECAY, (1 + step) / (10 + step))
        wanted = {name: decay * wanted[name] + (1 - decay) * value for name, value in policy.items()}
    assert not same_bits(wanted, policies[-1])
    run = str(resumed.run.folder)
    assert main(["export", run, "--weights", "ema", "--output", str(tmp_path / "ema")]) == 0
    assert main(["export", run, "--output", str(tmp_path / "policy")]) == 0
    for what, expected in (("ema", wanted), ("policy", policies[-1])):
        found = load_file(tmp_path / what / "pytorch_lora_weights.safetensors")
        assert found.keys() == {f"unet.{name}.weight" for name in expected}
        for name, value in expected.items():
            np.testing.assert_allclose(found[f"unet.{name}.weight"], value, rtol=1e-5, atol=1e-7)


def test_a_step_that_is_skipped_moves_no_average(tmp_path: Path) -> None:
    learner = learner_with(tmp_path)
    stepped(learner, 1)
    before = learner.average_state()
    step_on(learner, [pairs(learner.model, 2, ["tie"] * 2)])
    after = learner.average_state()
    assert before is not None
    assert after is not None
    assert same_bits(before, after)


def test_a_run_that_kept_none_exports_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learner = learner_with(tmp_path, decay=None)
    assert saved(learner, 1).ema(1) is None
    assert main(["export", str(learner.run.folder), "--weights", "ema"]) == 2
    said = "--weights = 'ema': the run kept no average; train with --train.ema_decay 0.999"
    assert said in capsys.readouterr().err
