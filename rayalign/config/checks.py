"""What must hold between the groups of a run. Each message names the setting and what to set."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rayalign.config.learning import ListedTimesteps
from rayalign.config.pairs import DatasetPairs, SamplePairs
from rayalign.redaction import holds_secret, names_secret

if TYPE_CHECKING:
    from pydantic import BaseModel

    from rayalign.config.run import RunConfig


def check_divisible(config: RunConfig) -> None:
    """Raises ValueError unless tickets divide into optimiser steps, workers and groups, and scorers stand once."""
    tickets = config.rollout.tickets_per_iteration
    workers = config.placement.train
    fitting = config.train.optimizer_steps * math.lcm(*range(workers.fewest, workers.num + 1))
    for num in range(workers.num, workers.fewest - 1, -1):
        share = config.train.optimizer_steps * num
        if tickets % share:
            field = "placement.train.num" if num == workers.num else f"{num} workers (placement.train.min allows them)"
            raise ValueError(
                f"rollout.tickets_per_iteration = {tickets} does not divide into train.optimizer_steps x "
                f"{field} = {share}; set it to a multiple, {-(-tickets // fitting) * fitting} for instance"
            )
    names = config.all_scorers
    if len(set(names)) != len(names):
        raise ValueError(f"rewards and evaluation.scorers: a scorer stands twice in {names}; name each once")
    pictures = config.evaluation.num_prompts * config.evaluation.seeds_per_prompt
    if config.standardised and pictures < 2:
        raise ValueError(
            f"rewards: {', '.join(config.standardised)} with scale = standardised needs a spread to begin with, which "
            f"one picture before tuning has not; set evaluation.num_prompts or evaluation.seeds_per_prompt to 2 or more"
        )
    if config.best_by not in ("reward", *names):
        raise ValueError(f"evaluation.best_by = {config.best_by!r} is measured nowhere; set reward or one of {names}")
    if isinstance(config.pairs, SamplePairs) and config.rollout.samples_per_ticket % config.pairs.group:
        raise ValueError(
            f"rollout.samples_per_ticket = {config.rollout.samples_per_ticket} does not divide into groups of "
            f"pairs.group = {config.pairs.group}; set it to a multiple"
        )


def check_choices(config: RunConfig) -> None:
    """Raises ValueError where pairs, objective, timesteps, sampler, guards and measurements do not go together."""
    pairs, objective, steps = config.pairs, config.objective, config.sampler.num_steps
    # Clean pairs are not tied to a step.
    for step in pairs.steps_on(steps) if pairs.rows != "clean" else ():
        if not 1 <= step <= steps:
            name = "tuned_steps" if pairs.kind == "stepwise" else "steps"
            raise ValueError(
                f"pairs.{name}: step {step} is outside the schedule; set steps between 1 and "
                f"sampler.num_steps = {steps}"
            )
    if pairs.rows not in objective.rows:
        fits = "sample" if objective.rows == frozenset({"sample"}) else "stepwise, trajectory, final or dataset"
        raise ValueError(
            f"objective.kind = {objective.kind} does not train on pairs.kind = {pairs.kind}; set pairs.kind to {fits}"
        )
    if isinstance(config.timesteps, ListedTimesteps) and pairs.rows != "clean":
        raise ValueError(
            f"timesteps.kind = listed is of re-noised pairs; with pairs.kind = {pairs.kind} set the steps in pairs"
        )
    if isinstance(pairs, DatasetPairs) and not pairs.path:
        raise ValueError("pairs.path is empty; set the parquet file, JSONL or folder that holds the pairs")
    if config.guard.on_collapse != "warn" and not config.evaluation.every:
        raise ValueError(
            f"guard.on_collapse = {config.guard.on_collapse} acts on held-out measurements, and evaluation.every = 0 "
            "makes none; set evaluation.every to 5, for instance"
        )
    smallest = min(config.rollout.samples_per_ticket, config.train.micro_batch)
    if objective.gathers:  # whole tickets, of all workers
        smallest = config.rollout.samples_per_ticket * config.placement.train.num
    if objective.gathers and config.placement.train.fewest < config.placement.train.num:
        raise ValueError(
            f"placement.train.min = {config.placement.train.min}: objective.gather contrasts the pairs of all train "
            "workers, so their number must stay; set placement.train.min to null, or objective.gather to false"
        )
    if objective.contrasts and smallest < 2:
        raise ValueError(
            f"objective.kind = {objective.kind} contrasts the pairs of a micro-batch, and with one pair it silently is "
            "DPO; set rollout.samples_per_ticket and train.micro_batch to at least 2"
        )


def check_no_secrets(config: BaseModel) -> None:
    """Raises ValueError, naming the setting but not its value, if one carries a password or token.

    Settings are written to config.yaml, to Ray's logs and into the report, all of which are passed on.
    """
    left: list[tuple[str, str, Any]] = [("", "", config.model_dump(mode="json"))]
    while left:
        path, name, value = left.pop()
        if isinstance(value, dict):
            left += [(f"{path}.{key}".lstrip("."), str(key), item) for key, item in value.items()]
        elif isinstance(value, list):
            left += [(f"{path}.{number}", name, item) for number, item in enumerate(value)]
        elif isinstance(value, str) and value and (holds_secret(value) or names_secret(name)):
            raise ValueError(
                f"{path} carries a password or token, which would be written to config.yaml and the report; take it "
                "out and set it in the environment instead (HF_TOKEN, AWS_ACCESS_KEY_ID, a variable that your own "
                "scorer reads)"
            )
