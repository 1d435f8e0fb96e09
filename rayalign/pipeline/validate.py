"""What can be known to be wrong before anything starts: inputs, model folder, and a run folder of other settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from rayalign.config import DatasetPairs, RunConfig, StepwisePairs
from rayalign.data.source import open_pairs
from rayalign.data.toy import NAME as TOY_PREFERENCES
from rayalign.errors import ConfigError
from rayalign.evaluation.trackers import check_trackers
from rayalign.learning import checkpoint
from rayalign.models.load import find_family
from rayalign.prompts import BUILT_IN, load_prompts
from rayalign.rewards.table import EMBEDDERS, SCORERS, absolute_options, check_scorer, scorer_facts
from rayalign.toy import TOY_MODELS


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """The same run with its output, and every local file or folder it names, as absolute paths.

    Actors do not share the driver's working folder: a train worker's is one of Ray's own.
    """

    def absolute(path: str | None) -> str | None:
        if not path or path in (*BUILT_IN, *TOY_MODELS, TOY_PREFERENCES):
            return path
        found = Path(path).expanduser()
        return str(found.resolve()) if found.exists() else path

    tree: dict[str, Any] = config.model_dump()
    tree["output"] = str(Path(config.output).expanduser().resolve())
    for group, name in (("model", "path"), ("model", "vae"), ("prompts", "source"), ("prompts", "heldout")):
        tree[group][name] = absolute(tree[group][name])
    if isinstance(config.pairs, DatasetPairs):
        tree["pairs"]["path"] = absolute(config.pairs.path)
        if config.pairs.cache is not None:
            tree["pairs"]["cache"] = str(Path(config.pairs.cache).expanduser().resolve())
    for one, reward in zip(tree["rewards"], config.rewards, strict=True):
        one["options"] = absolute_options(reward.scorer, reward.options)
    return RunConfig.model_validate(tree)


def check_inputs(config: RunConfig) -> None:
    """Raises ConfigError on the first unknown scorer, unreadable prompt file or unusable model."""
    check_trackers(config.trackers)
    for reward in config.rewards:
        check_scorer(reward.scorer, reward.options)
    for name in config.evaluation.scorers:
        check_scorer(name)
    if isinstance(config.pairs, StepwisePairs) and config.pairs.guidance.enabled:
        _check_differentiable(config.scorer_names)
    if config.objective.embeds_with is not None:
        _check_embedder(config.objective.embeds_with[0])
    if isinstance(config.pairs, DatasetPairs):
        open_pairs(config.pairs.path)
    load_prompts(config.prompts)
    load_prompts(config.prompts, "prompts.heldout")
    find_family(config.model.path, config.model.family)


def _check_differentiable(scorers: list[str]) -> None:
    """A mixture is differentiable if all of its scorers are."""
    without = [name for name in scorers if not scorer_facts(name).differentiable]
    if without:
        having = ", ".join(name for name, facts in SCORERS.items() if facts.differentiable)
        fix = f"gradient guidance needs scorers that have a gradient; set --reward to some of {having}"
        raise ConfigError("rewards.scorer", without[0], f"{fix}, or pairs.guidance.enabled to false")


def _check_embedder(name: str) -> None:
    if name not in EMBEDDERS:
        raise ConfigError("objective.embedder", name, f"embeds nothing; set one of {', '.join(EMBEDDERS)}")


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
