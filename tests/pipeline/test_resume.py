from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayalign.cli import parse
from rayalign.config import RunConfig
from rayalign.errors import CheckpointError, ConfigError
from rayalign.evaluation.history import history_line
from rayalign.learning.checkpoint import Checkpoint
from rayalign.pipeline.resume import adopt, check_resume, known_history, source_settings, store_of
from rayalign.pipeline.validate import with_absolute_paths
from rayalign.records import IterationRecord

ARRAY = {"a": np.ones(2, dtype=np.float32)}


def settings(output: Path, **changes: Any) -> RunConfig:
    tree: dict[str, Any] = {"output": str(output), "model": {"path": "stub"}, "rewards": [{"scorer": "stub"}]}
    tree["objective"] = {"kind": "dpo", "beta": 1.0}
    return with_absolute_paths(RunConfig.model_validate(tree | changes))


def begun(config: RunConfig, done: int = 3) -> RunConfig:
    """A run with one checkpoint, as far as a resume looks at it."""
    config.folder.mkdir(parents=True, exist_ok=True)
    (config.folder / "config.yaml").write_text(config.to_yaml())
    records = [IterationRecord(n, n + 1, {"loss": 0.5}, {}, {}, 0) for n in range(done)]
    history = "".join(map(history_line, records))
    store_of(config).save(Checkpoint(done, config.model_dump(mode="json"), ARRAY, ARRAY, ARRAY, history=history))
    return config


def changed(config: RunConfig, **changes: Any) -> RunConfig:
    return RunConfig.model_validate(config.model_dump() | changes)


def test_what_matters_is_refused_setting_by_setting(tmp_path: Path) -> None:
    config = begun(settings(tmp_path))
    other = changed(config, seed=7, objective={"kind": "dpo", "beta": 2.0}, iterations=99, max_failures=7)
    with pytest.raises(ConfigError) as caught:
        check_resume(other)
    message = str(caught.value)
    assert "objective.beta 1.0 -> 2.0; seed 0 -> 7); set them back, or another --name" in message
    assert "iterations" not in message  # those that may change are not among the differences
    assert "max_failures" not in message
    with pytest.raises(ConfigError, match=r"objective\.kind dpo -> sft"):
        check_resume(changed(config, objective={"kind": "sft"}))


def test_what_decides_only_where_and_how_long_may_change(tmp_path: Path) -> None:
    config = begun(settings(tmp_path))
    tree = config.model_dump()
    tree["placement"] |= {"train": {"num": 2}, "rollout": {"min": 2, "max": 4}}
    tree["rollout"] |= {"max_lag": 1, "tickets_in_flight": 4}
    check_resume(RunConfig.model_validate(tree | {"iterations": 40, "keep_checkpoints": 1}))


def test_settings_are_the_checkpoints_wherever_the_runs_folder_went(tmp_path: Path) -> None:
    """A new machine has the bucket and an empty disk."""
    bucket = str(tmp_path / "bucket")
    begun(settings(tmp_path / "one", checkpoints=bucket))
    with pytest.raises(ConfigError, match="seed 0 -> 1"):
        check_resume(settings(tmp_path / "two", checkpoints=bucket, seed=1))
    again = settings(tmp_path / "two", checkpoints=bucket)
    check_resume(again)
    assert [record.iteration for record in known_history(store_of(again), 3)] == [0, 1, 2]


def test_if_all_is_damaged_nothing_is_begun_over_it(tmp_path: Path) -> None:
    config = begun(settings(tmp_path))
    state = config.folder / "checkpoints" / "iteration-000003" / "state.json"
    state.write_text("{}")
    with pytest.raises(CheckpointError, match=r"every checkpoint in .* is damaged .*state\.json is not what was"):
        check_resume(config)
    # A first one that was only cut off holds nothing: the run begins.
    (state.parent / "manifest.json").unlink()
    check_resume(config)


def test_from_elsewhere_with_its_settings_and_its_newest_checkpoint(tmp_path: Path) -> None:
    source = begun(settings(tmp_path / "old", name="first", seed=5))
    # Where it is may be anything, and the rest is the source's, not the job's.
    arguments = ["--resume", str(source.folder), "--output", str(tmp_path / "new"), "--name", "second"]
    config = parse("", {"seed": 1, "model": {"path": "toy-sdxl"}}, arguments)
    assert (config.seed, config.model.path, config.name) == (5, "stub", "second")
    config = with_absolute_paths(config)
    check_resume(config)
    config.folder.mkdir(parents=True)
    (config.folder / "config.yaml").write_text(config.to_yaml())
    store = store_of(config)
    adopt(config, store)
    assert store.newest().done == 3
    assert store_of(source).newest().done == 3
    # The same command again goes on from what is there by then, and not from the source once more.
    check_resume(config)
    begun(config, 8)
    begun(source, 9)
    check_resume(config)
    adopt(config, store)
    assert store.newest().done == 8


def test_a_source_is_named_by_its_folder_or_its_checkpoints_wherever_these_are(tmp_path: Path) -> None:
    config = begun(settings(tmp_path / "runs", checkpoints=f"local://{tmp_path}/bucket", name="far", seed=4))
    near = begun(settings(tmp_path / "runs", name="near", seed=4))
    for source in (config.folder, near.folder, f"{near.folder}/", near.folder / "checkpoints"):
        assert source_settings(str(source))["seed"] == 4
    assert source_settings(f"local://{tmp_path}/bucket/far")["seed"] == 4
    assert not {"name", "output", "checkpoints", "resume"} & source_settings(str(near.folder)).keys()


def test_from_elsewhere_what_matters_is_refused_too(tmp_path: Path) -> None:
    source = begun(settings(tmp_path / "old", seed=5))
    with pytest.raises(ConfigError, match=r"resume = .*of other settings \(seed 5 -> 6\); set them as they were"):
        check_resume(settings(tmp_path / "new", resume=str(source.folder), seed=6))


def test_a_run_that_has_checkpoints_of_its_own_is_not_resumed_from_another(tmp_path: Path) -> None:
    source, own = begun(settings(tmp_path / "old")), begun(settings(tmp_path / "new"), 2)
    with pytest.raises(ConfigError, match="holds checkpoints of this run's own; leave --resume out, or set another"):
        check_resume(changed(own, resume=str(source.folder)))


def test_a_folder_without_checkpoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no checkpoints; set a run's folder, or the folder or URI that holds"):
        source_settings(str(tmp_path))
    with pytest.raises(ConfigError, match=r"resume = 'nowhere://x': cannot be opened \(Protocol not known"):
        source_settings("nowhere://x")
    with pytest.raises(ConfigError, match="checkpoints = 'nowhere://x': cannot be opened"):
        store_of(settings(tmp_path, checkpoints="nowhere://x"))


def test_a_run_that_went_back_is_no_beginning_unless_one_trains_on_all_the_same(tmp_path: Path) -> None:
    guards = {"guard": {"on_collapse": "rollback"}, "evaluation": {"every": 1}}
    source = begun(settings(tmp_path, name="first", **guards))
    record = IterationRecord(3, 4, {}, {}, {}, 0, {"rollback": 2})
    state = Checkpoint(4, source.model_dump(mode="json"), ARRAY, ARRAY, ARRAY, history=history_line(record))
    store_of(source).save(state)
    other = settings(tmp_path, name="second", resume=str(source.folder), **guards)
    with pytest.raises(ConfigError, match=r"resume = .* went back to policy version 2 .* to warn"):
        check_resume(other)
    check_resume(changed(other, guard={"on_collapse": "warn"}))


def test_what_a_stopped_run_is_told_to_raise_may_be_raised(tmp_path: Path) -> None:
    offline = {"kind": "dataset", "path": "toy-preferences"}
    config = begun(settings(tmp_path, pairs=offline))
    raised = {"pairs": offline | {"max_broken_share": 0.5, "cache": str(tmp_path / "latents")}}
    check_resume(changed(config, train={**config.train.model_dump(), "max_skipped_steps": 50}, **raised))
    with pytest.raises(ConfigError, match=r"pairs.empty_prompt_share 0.0 -> 0.2"):
        check_resume(changed(config, pairs=offline | {"empty_prompt_share": 0.2}))
