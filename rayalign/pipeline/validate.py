"""What can be known to be wrong before anything starts: inputs and model folder. For a run to resume: `resume.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rayalign.config import DatasetPairs, RunConfig, StepwisePairs
from rayalign.data.source import open_pairs
from rayalign.data.toy import NAME as TOY_PREFERENCES
from rayalign.errors import ConfigError
from rayalign.evaluation.trackers import check_trackers
from rayalign.prompts import BUILT_IN, read_prompts
from rayalign.rewards.table import EMBEDDERS, SCORERS, absolute_options, check_scorer, scorer_facts
from rayalign.toy import TOY_MODELS


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """The same run with its output, and every local file or folder it names, as absolute paths.

    Actors do not share the driver's working folder: a train worker's is one of Ray's own.
    """

    def absolute(path: str | None) -> str | None:
        if not path or path in (*BUILT_IN, *TOY_MODELS, TOY_PREFERENCES):
            return path
        try:
            found = Path(path).expanduser()
            return str(found.resolve()) if found.exists() else path
        except (OSError, ValueError, RuntimeError):  # a name that no file can have: what reads it says so
            return path

    tree: dict[str, Any] = config.model_dump()
    for name in ("output", "checkpoints", "resume"):
        if tree[name] is not None and "://" not in tree[name]:
            tree[name] = str(Path(tree[name]).expanduser().resolve())
    for group, name in (("model", "path"), ("model", "vae"), ("prompts", "source"), ("prompts", "heldout")):
        tree[group][name] = absolute(tree[group][name])
    if isinstance(config.pairs, DatasetPairs):
        tree["pairs"]["path"] = absolute(config.pairs.path)
        if config.pairs.cache is not None:
            tree["pairs"]["cache"] = str(Path(config.pairs.cache).expanduser().resolve())
    for one, reward in zip([*tree["rewards"], *tree["evaluation"]["scorers"]], config.all_rewards, strict=True):
        one["options"] = absolute_options(reward.scorer, reward.options)
    return RunConfig.model_validate(tree)


def check_inputs(config: RunConfig) -> list[str]:
    """What a person should know of inputs that can be used.

    Raises ConfigError on the first unknown scorer, unreadable prompt file or pairs, or unusable model.
    """
    notes = check_files(config)
    from rayalign.models.check import check_model  # now, not above: see check_files

    check_model(config)
    return notes


def check_files(config: RunConfig) -> list[str]:
    """`check_inputs` without the model: what a job can say within a second, before torch and Ray are imported."""
    check_trackers(config.trackers)
    for reward in config.all_rewards:
        check_scorer(reward.scorer, reward.options)
    if isinstance(config.pairs, StepwisePairs) and config.pairs.guidance.enabled:
        _check_differentiable(config.scorer_names)
    if config.objective.embeds_with is not None:
        _check_embedder(config.objective.embeds_with[0])
    if isinstance(config.pairs, DatasetPairs):
        open_pairs(config.pairs.path)
    notes = [note for field in ("prompts.source", "prompts.heldout") for note in _left_out(config, field)]
    return list(dict.fromkeys(notes))


def _left_out(config: RunConfig, field: str) -> list[str]:
    found = read_prompts(config.prompts, field)
    source = config.prompts.source if field == "prompts.source" else config.prompts.heldout or config.prompts.source
    counts = {"stand there already and are drawn once": found.num_duplicates, "are empty": found.num_empty}
    said = [f"{count} lines {what}" for what, count in counts.items() if count]
    return [f"warning: {source}: {', '.join(said)}; {len(found.prompts)} distinct prompts"] if said else []


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
