"""What can be known to be wrong before anything starts: inputs, model folder, and a run folder of other settings."""

from __future__ import annotations

from pathlib import Path

import yaml

from rayalign.config import RunConfig
from rayalign.errors import ConfigError
from rayalign.learning import checkpoint
from rayalign.models.load import find_family
from rayalign.prompts import BUILT_IN, load_prompts
from rayalign.rewards.table import check_scorer
from rayalign.toy import TOY_MODELS


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """The same run with its output, and every local file or folder it names, as absolute paths.

    Actors do not share the driver's working folder: a train worker's is one of Ray's own.
    """

    def absolute(path: str | None) -> str | None:
        if not path or path in BUILT_IN or path in TOY_MODELS:
            return path
        found = Path(path).expanduser()
        return str(found.resolve()) if found.exists() else path

    tree = config.model_dump()
    tree["output"] = str(Path(config.output).expanduser().resolve())
    for group, name in (("model", "path"), ("model", "vae"), ("prompts", "source"), ("prompts", "heldout")):
        tree[group][name] = absolute(tree[group][name])
    return RunConfig.model_validate(tree)


def check_inputs(config: RunConfig) -> None:
    """Raises ConfigError on the first unknown scorer, unreadable prompt file or unusable model."""
    for name in (*config.scorer_names, *config.evaluation.scorers):
        check_scorer(name)
    load_prompts(config.prompts)
    load_prompts(config.prompts, "prompts.heldout")
    find_family(config.model.path, config.model.family)


def check_resume(config: RunConfig) -> None:
    """Raises ConfigError, showing each difference, if the run's folder was begun with settings that matter."""
    stored = config.folder / "config.yaml"
    newest, _ = checkpoint.latest(config.folder / "checkpoints")
    if not stored.exists() or newest is None:
        return
    before = RunConfig.model_validate(yaml.safe_load(stored.read_text()))
    if before.hash() == config.hash():
        return
    old, new = (_flat(one.model_dump(mode="json")) for one in (before, config))
    changed = [
        f"{key} was {old.get(key)}, is {new.get(key)}" for key in sorted(old | new) if old.get(key) != new.get(key)
    ]
    fix = f"{config.folder} holds a run with other settings ({'; '.join(changed)}); set another --name"
    raise ConfigError("name", config.name, fix)


def _flat(tree: object, path: str = "") -> dict[str, object]:
    if isinstance(tree, dict):
        return {k: v for key, value in tree.items() for k, v in _flat(value, f"{path}.{key}".strip(".")).items()}
    return {path: tree}
