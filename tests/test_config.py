from __future__ import annotations

from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from rayalign.config import RunConfig, SamplerConfig


def test_defaults_are_a_valid_run_and_survive_yaml() -> None:
    config = RunConfig()
    assert RunConfig.model_validate(yaml.safe_load(config.to_yaml())) == config
    assert config.scorer_names == ["jpeg"]
    assert config.pairs_per_ticket == 4 * 5
    assert str(config.folder) == "runs/tailorpo"


def changed(config: RunConfig, field: str, value: Any) -> RunConfig:
    tree = config.model_dump(mode="json")
    *path, name = field.split(".")
    group = tree
    for part in path:
        group = group[part]
    group[name] = value
    return RunConfig.model_validate(tree)


HARMLESS = {
    "name": "other",
    "output": "elsewhere",
    "iterations": 99,
    "keep_checkpoints": 1,
    "max_failures": 9,
    "stall_timeout_s": 5.0,
    "placement.rollout.max": 4,
    "placement.train.num": 2,
    "service.max_batch": 3,
    "evaluation.num_prompts": 2,
}
HARMFUL = {
    "seed": 1,
    "model.path": "toy-sd15",
    "model.lora.rank": 8,
    "sampler.tuned_steps": [20, 10],
    "train.lr": 1e-4,
    "train.ratio_clip": None,
    "rollout.samples_per_ticket": 2,
    "prompts.source": "shapes",
    "rewards": [{"scorer": "jpeg", "weight": 2.0}],
}


@pytest.mark.parametrize("field", HARMLESS)
def test_the_hash_ignores_where_and_how_long(field: str) -> None:
    assert changed(RunConfig(), field, HARMLESS[field]).hash() == RunConfig().hash()


def test_the_hash_sees_what_is_learned() -> None:
    hashes = [changed(RunConfig(), field, value).hash() for field, value in HARMFUL.items()]
    assert len({RunConfig().hash(), *hashes}) == 1 + len(HARMFUL)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"sampler": {"tuned_steps": [21]}}, "step 21 is outside the schedule; set steps between 1 and num_steps = 20"),
        ({"sampler": {"tuned_steps": [0]}}, "step 0 is outside the schedule"),
        ({"sampler": {"num_steps": 10}}, "step 20 is outside the schedule"),
        ({"sampler": {"tuned_steps": [4, 4]}}, "a step stands twice"),
        ({"sampler": {"tuned_steps": []}}, "at least 1 item"),
        ({"sampler": {"eta": 0}}, "greater than 0"),
        ({"sampler": {"num_candidates": 1}}, "greater than or equal to 2"),
        ({"train": {"optimizer_steps": 3}}, "= 16 does not divide into .* = 3; set it to a multiple, 18 for instance"),
        ({"placement": {"train": {"num": 32}}}, "set it to a multiple, 32 for instance"),
        ({"placement": {"scorer": {"min": 3}}}, "max = 1 is below min = 3"),
        ({"rewards": [{"scorer": "jpeg"}], "evaluation": {"scorers": ["jpeg"]}}, "a scorer stands twice"),
        ({"rewards": []}, "at least 1 item"),
        ({"train": {"lr": float("nan")}}, "finite number"),
        ({"train": {"betas": [0.9, 1.0]}}, "less than 1"),
        ({"rollout": {"max_lag": 2}}, "less than or equal to 1"),
        ({"model": {"resolution": 100}}, "multiple of 8"),
        ({"name": "../elsewhere"}, "match pattern"),
    ],
)
def test_a_bad_value_is_refused(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RunConfig.model_validate(tree)


def test_yamls_no_is_a_word_here() -> None:
    tree = yaml.safe_load("train: {mixed_precision: no}")
    assert tree == {"train": {"mixed_precision": False}}
    assert RunConfig.model_validate(tree).train.mixed_precision == "no"


def test_calls_per_trajectory_by_hand() -> None:
    # 20 steps, one more look for the loser at each of 5 tuned; two more with three candidates; none at step 1.
    assert SamplerConfig().calls_per_trajectory == 25
    assert SamplerConfig(num_candidates=3).calls_per_trajectory == 30
    assert SamplerConfig(tuned_steps=(20, 1)).calls_per_trajectory == 21


def test_nothing_changes_after_validation() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RunConfig().train.lr = 1.0  # type: ignore[misc]
