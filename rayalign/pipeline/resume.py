"""Where a run goes on: its own newest checkpoint, or that of another run (`resume`), if it is of the same settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from rayalign.config import RunConfig
from rayalign.config.files import read_settings
from rayalign.errors import CheckpointError, ConfigError
from rayalign.evaluation.history import parse_history
from rayalign.evaluation.wrong import rolled_back_to
from rayalign.learning.checkpoint import HISTORY, STATE
from rayalign.learning.checkpoint_store import CheckpointStore
from rayalign.records import IterationRecord
from rayalign.trees import changes


def store_of(config: RunConfig) -> CheckpointStore:
    """The run's own checkpoints. Raises ConfigError if nothing can open `checkpoints`."""
    try:
        return CheckpointStore.at(config.checkpoint_root, config.keep_checkpoints)
    except (ValueError, ImportError, OSError) as error:
        fix = f"cannot be opened ({error}); set a folder or a URI that pyarrow or fsspec knows"
        raise ConfigError("checkpoints", config.checkpoints, fix) from error


def check_resume(config: RunConfig) -> None:
    """Raises before anything starts if the run cannot go on from where it would.

    ConfigError, setting by setting, if its checkpoint was learned with others that matter, and if `resume` names no
    checkpoint or this run has some of its own; CheckpointError if all of its own are damaged.
    """
    own = store_of(config)
    newest = own.newest()
    if newest.done:
        before = _settings(own, newest.done)
        _refuse_changes(before, config, "name", config.name, "set them back, or another --name")
        if config.resume is not None and config.resume not in (before.get("resume"), _begun_from(config)):
            fix = f"{own.place.name} holds checkpoints of this run's own; leave --resume out, or set another --name"
            raise ConfigError("resume", config.resume, fix)
    elif newest.damaged:
        fix = "move them away, or set another --name"
        raise CheckpointError(f"every checkpoint in {own.place.name} is damaged ({newest.problems[0]}); {fix}")
    elif config.resume is not None:
        source, done = find_source(config.resume)
        _refuse_changes(_settings(source, done), config, "resume", config.resume, "set them as they were")
        back = rolled_back_to(known_history(source, done))
        if back is not None and config.guard.on_collapse == "rollback":
            fix = (
                f"went back to policy version {back} after a collapse and ended there; set guard.on_collapse to warn "
                "or stop to train on from its newest checkpoint all the same"
            )
            raise ConfigError("resume", config.resume, fix)


def find_source(resume: str) -> tuple[CheckpointStore, int]:
    """Where to go on from, and after how many iterations. Raises ConfigError if there is no whole checkpoint."""
    try:
        used = [store for store in map(CheckpointStore.at, _roots(resume)) if store.is_used()]
    except (ValueError, ImportError, OSError) as error:
        raise ConfigError("resume", resume, f"cannot be opened ({error})") from error
    if not used:
        raise ConfigError(
            "resume", resume, "has no checkpoints; set a run's folder, or the folder or URI that holds them"
        )
    newest = used[0].newest()
    if not newest.done:
        raise ConfigError("resume", resume, f"holds no whole checkpoint: {newest.problems[0]}")
    return used[0], newest.done


def _roots(resume: str) -> list[str]:
    """Where its checkpoints may be: there, in its folder of them, or where its config.yaml says."""
    tree = _stored(Path(resume).expanduser()) if "://" not in resume else {}
    elsewhere = [f"{tree['checkpoints'].rstrip('/')}/{tree['name']}"] if tree.get("checkpoints") else []
    return [resume, f"{resume.rstrip('/')}/checkpoints", *elsewhere]


def source_settings(resume: str) -> dict[str, Any]:
    """What a run resumed from there has for settings, but for where it is: a tree as of config.yaml."""
    source, done = find_source(resume)
    return {name: value for name, value in _settings(source, done).items() if name not in _OWN}


def adopt(config: RunConfig, store: CheckpointStore) -> None:
    """Copies the newest checkpoint of `resume` into the run's own store, unless that has one already."""
    if config.resume is not None and not store.newest().done:
        source, done = find_source(config.resume)
        store.copy_from(source, done)


def known_history(store: CheckpointStore, done: int) -> list[IterationRecord]:
    """The records of the iterations behind a checkpoint, which outlive the folder that history.jsonl is in."""
    return parse_history(store.text(done, HISTORY)) if done else []


def changed_settings(before: dict[str, Any], config: RunConfig) -> list[str]:
    """ "seed 0 -> 7" for each setting that decides what is learned; raises CheckpointError if `before` is no config."""
    try:
        old = RunConfig.model_validate(before)
    except ValidationError as error:
        raise CheckpointError(f"its settings are of another version of rayalign: {error}") from error
    return changes(old.learned(), config.learned())


def _refuse_changes(before: dict[str, Any], config: RunConfig, field: str, value: str, fix: str) -> None:
    changed = changed_settings(before, config)
    if changed:
        raise ConfigError(field, value, f"its checkpoints are of other settings ({'; '.join(changed)}); {fix}")


def _settings(store: CheckpointStore, done: int) -> dict[str, Any]:
    return dict(json.loads(store.text(done, STATE))["config"])


def _begun_from(config: RunConfig) -> str | None:
    """`resume` of the command that began the run's folder, before it made a checkpoint of its own."""
    return _stored(config.folder).get("resume")


def _stored(folder: Path) -> dict[str, Any]:
    """A run folder's config.yaml, {} where there is none."""
    file = folder / "config.yaml"
    return read_settings(file, "resume") if file.is_file() else {}


_OWN = ("name", "output", "checkpoints", "resume")
