from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, get_args

import pytest
import yaml
from pydantic import ValidationError

from rayalign.config import (
    DatasetPairs,
    FinalPairs,
    GuidanceConfig,
    Pairs,
    PoolConfig,
    RewardConfig,
    RunConfig,
    SamplePairs,
    StepwisePairs,
    TrajectoryPairs,
)
from rayalign.config.evaluate import EvaluateConfig
from rayalign.config.score import ScoreConfig
from rayalign.objectives.table import OBJECTIVES


def test_defaults_are_a_valid_run_and_survive_yaml() -> None:
    config = RunConfig()
    assert RunConfig.model_validate(yaml.safe_load(config.to_yaml())) == config
    assert config.scorer_names == ["jpeg"]
    assert config.pairs_per_ticket == 4 * 5
    assert str(config.folder) == "runs/tailorpo"


def changed(config: RunConfig, field: str, value: Any, **groups: Any) -> RunConfig:
    tree = config.model_dump(mode="json") | groups
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
    "evaluation.every": 7,
    "rollout.max_lag": 1,
    "checkpoints": "s3://bucket/runs",
    "resume": "runs/other",
}
HARMFUL = {
    "seed": 1,
    "model.path": "toy-sd15",
    "model.tuning.rank": 8,
    "model.tuning": {"kind": "full"},
    "sampler.eta": 0.5,
    "pairs.tuned_steps": [20, 10],
    "pairs.min_gap": 0.1,
    "pairs.guidance.enabled": True,
    "pairs": {"kind": "trajectory"},
    "train.lr": 1e-4,
    "objective.ratio_clip": None,
    "objective": {"kind": "sft"},
    "reference": {"kind": "copied"},
    "timesteps": {"kind": "early"},
    "reward_scale": "snr",
    "rollout.samples_per_ticket": 2,
    "prompts.source": "shapes",
    "rewards": [{"scorer": "jpeg", "weight": 2.0}],
}


@pytest.mark.parametrize("field", HARMLESS)
def test_the_hash_ignores_where_and_how_long(field: str) -> None:
    assert changed(RunConfig(), field, HARMLESS[field]).hash() == RunConfig().hash()


def test_pictures_before_tuning_are_learned_from_where_their_scores_set_the_scale() -> None:
    standardised = changed(RunConfig(), "rewards", [{"scorer": "jpeg", "scale": "standardised"}])
    for field, value in (("evaluation.num_prompts", 5), ("evaluation.batch", 3), ("prompts.heldout", "shapes")):
        assert changed(RunConfig(), field, value).hash() == RunConfig().hash()
        assert changed(standardised, field, value).hash() != standardised.hash()
    assert changed(standardised, "evaluation.scorers", ["clip"]).hash() == standardised.hash()


def test_the_hash_sees_what_is_learned() -> None:
    hashes = [changed(RunConfig(), field, value).hash() for field, value in HARMFUL.items()]
    assert len({RunConfig().hash(), *hashes}) == 1 + len(HARMFUL)


SAMPLE, DDPO = {"kind": "sample"}, {"kind": "ddpo"}
RPO, FINAL = {"kind": "rpo"}, {"kind": "final"}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (
            {"pairs": {"tuned_steps": [21]}},
            r"pairs.tuned_steps: step 21 is outside the schedule; set steps between 1 and sampler.num_steps = 20",
        ),
        ({"pairs": {"tuned_steps": [0]}}, "pairs.tuned_steps: step 0 is outside the schedule"),
        ({"pairs": {"kind": "trajectory", "steps": [21]}}, "pairs.steps: step 21 is outside the schedule"),
        ({"pairs": SAMPLE | {"steps": [0]}, "objective": DDPO}, "pairs.steps: step 0 is outside the schedule"),
        ({"sampler": {"num_steps": 10}}, "step 20 is outside the schedule"),
        ({"pairs": {"tuned_steps": [4, 4]}}, "a step stands twice"),
        ({"pairs": {"tuned_steps": []}}, "at least 1 item"),
        ({"pairs": {"num_candidates": 1}}, "greater than or equal to 2"),
        ({"pairs": {"kind": "nothing"}}, "expected tags"),
        ({"pairs": {"draws": 2}}, "pairs.stepwise.draws\n  Extra inputs"),
        (
            {"pairs": SAMPLE},
            "objective.kind = dpo does not train on pairs.kind = sample; set pairs.kind to stepwise, t",
        ),
        (
            {"objective": DDPO},
            "objective.kind = ddpo does not train on pairs.kind = stepwise; set pairs.kind to sample",
        ),
        (
            {"pairs": SAMPLE | {"group": 3}, "objective": DDPO},
            "= 4 does not divide into groups of pairs.group = 3; set",
        ),
        ({"timesteps": {"kind": "listed"}}, "timesteps.kind = listed is of re-noised pairs; with pairs.kind = stepwis"),
        ({"timesteps": {"kind": "early", "gamma": 1.1}}, "less than or equal to 1"),
        ({"pairs": {"kind": "dataset"}}, "pairs.path is empty; set the parquet file, JSONL or folder"),
        ({"objective": RPO, "train": {"micro_batch": 1}}, "with one pair it silently is DPO; set rollout.samples_per_"),
        ({"objective": RPO, "rollout": {"samples_per_ticket": 1}}, "with one pair it silently is DPO"),
        (
            {"objective": RPO | {"gather": True}, "rollout": {"samples_per_ticket": 1}},
            "with one pair it silently is DPO",
        ),
        (
            {"objective": RPO | {"gather": True}, "placement": {"train": {"num": 2, "min": 1}}},
            "so their number must stay; set placement.train.min to null",
        ),
        ({"objective": {"beta": 0}}, "greater than 0"),
        ({"reference": {"kind": "copied", "every": 0}}, "greater than or equal to 1"),
        ({"reference": {"kind": "copied", "max_divergence": 0}}, "greater than 0"),
        ({"sampler": {"eta": 0}}, "greater than 0"),
        ({"train": {"optimizer_steps": 3}}, "= 16 does not divide into .* = 3; set it to a multiple, 18 for instance"),
        ({"placement": {"train": {"num": 32}}}, "set it to a multiple, 32 for instance"),
        ({"placement": {"scorer": {"min": 3}}}, "max = 1 is below min = 3"),
        ({"placement": {"train": {"num": 2, "min": 3}}}, "min = 3 is above num = 2"),
        ({"placement": {"train": {"num": 4, "min": 2}}}, "3 workers .placement.train.min allows them. = 3; set"),
        ({"rewards": [{"scorer": "jpeg"}], "evaluation": {"scorers": ["jpeg"]}}, "a scorer stands twice"),
        ({"rewards": []}, "at least 1 item"),
        ({"evaluation": {"best_by": "clip"}}, r"evaluation.best_by = 'clip' is measured nowhere; set reward or one of"),
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
    assert StepwisePairs().calls_per_trajectory(20) == 25
    assert StepwisePairs(num_candidates=3).calls_per_trajectory(20) == 30
    assert StepwisePairs(tuned_steps=(20, 1)).calls_per_trajectory(20) == 21
    # Guidance: one more with gradient, one at the moved winner; none at step 1.
    assert StepwisePairs(guidance=GuidanceConfig(enabled=True)).calls_per_trajectory(20) == 35
    assert StepwisePairs(tuned_steps=(20, 1), guidance=GuidanceConfig(enabled=True)).calls_per_trajectory(20) == 23
    # Whole trajectories branch nowhere, and a dataset's were drawn by somebody else.
    assert [pairs.calls_per_trajectory(20) for pairs in (TrajectoryPairs(), FinalPairs(), SamplePairs())] == [20] * 3
    assert DatasetPairs().calls_per_trajectory(20) == 0


def test_where_checkpoints_are() -> None:
    assert RunConfig(name="a").checkpoint_root == "runs/a/checkpoints"
    assert RunConfig(name="a", checkpoints="s3://bucket/runs/").checkpoint_root == "s3://bucket/runs/a"


def test_the_best_checkpoint_is_told_by_what_was_held_out() -> None:
    assert RunConfig().best_by == "reward"
    assert changed(RunConfig(), "evaluation.scorers", ["clip", "aesthetic"]).best_by == "clip"
    assert changed(RunConfig(), "evaluation.best_by", "jpeg").best_by == "jpeg"


def test_a_held_out_scorer_is_a_name_or_has_options() -> None:
    names = changed(RunConfig(), "evaluation.scorers", ["clip", "stub"])
    whole = changed(RunConfig(), "evaluation.scorers", [{"scorer": "clip"}, RewardConfig(scorer="stub")])
    assert names == whole
    assert names.heldout_names == ["clip", "stub"]
    assert names.all_scorers == ["jpeg", "clip", "stub"]
    red = {"scorer": "stub", "options": {"rule": "red"}, "environment": "/some/python"}
    mixed = changed(RunConfig(), "evaluation.scorers", ["clip", red])
    assert mixed.evaluation.scorers[1] == RewardConfig.model_validate(red)
    assert mixed.best_by == "clip"
    assert RunConfig.model_validate(yaml.safe_load(mixed.to_yaml())) == mixed != names
    assert mixed.learned() == names.learned() == RunConfig().learned()  # a run may go on with others
    with pytest.raises(ValidationError, match="a scorer stands twice"):
        changed(RunConfig(), "evaluation.scorers", ["jpeg", red])


def test_a_scorer_may_have_a_placement_of_its_own_which_is_not_learned() -> None:
    placed = {"scorer": "pickscore", "placement": {"gpus": 0.5, "max": 3}}
    config = changed(RunConfig(), "rewards", [{"scorer": "jpeg"}, placed])
    usual = config.placement.scorer
    assert [reward.pool(usual) for reward in config.rewards] == [usual, PoolConfig(gpus=0.5, max=3)]
    assert RunConfig.model_validate(yaml.safe_load(config.to_yaml())) == config
    elsewhere = changed(RunConfig(), "rewards", [{"scorer": "jpeg"}, {"scorer": "pickscore"}])
    assert config.learned() == elsewhere.learned()
    with pytest.raises(ValidationError, match="max = 1 is below min = 2"):
        changed(RunConfig(), "rewards", [{"scorer": "jpeg", "placement": {"min": 2}}])
    evaluations = [EvaluateConfig.model_validate({"rewards": [one]}) for one in (placed, {"scorer": "pickscore"})]
    assert evaluations[0].decides_pictures() == evaluations[1].decides_pictures()


def test_pairs_per_ticket_by_hand() -> None:
    # 4 samples, 5 tuned steps; all of 20 steps but the last; a finished picture has no step.
    assert RunConfig().pairs_per_ticket == 20
    assert RunConfig(pairs=TrajectoryPairs()).pairs_per_ticket == 76
    assert RunConfig(pairs=TrajectoryPairs(steps=(20, 1))).pairs_per_ticket == 8
    assert RunConfig(pairs=FinalPairs()).pairs_per_ticket == 4
    assert changed(RunConfig(), "pairs", SAMPLE, objective=DDPO).pairs_per_ticket == 76


@pytest.mark.parametrize(
    ("group", "kind"),
    [("pairs", "stepwise"), ("objective", "dpo"), ("reference", "fixed"), ("timesteps", "uniform")],
)
def test_a_choice_without_a_kind_is_the_usual_one(group: str, kind: str) -> None:
    assert getattr(RunConfig.model_validate({group: {}}), group).kind == kind


def test_one_setting_of_the_usual_kind_can_be_set_alone() -> None:
    config = RunConfig.model_validate({"model": {"tuning": {"rank": 2}}, "objective": {"beta": 2.0}})
    assert (config.model.tuning.kind, config.model.tuning.rank) == ("lora", 2)
    assert (config.objective.kind, config.objective.beta) == ("dpo", 2.0)


def combinations() -> Iterator[tuple[dict[str, Any], str, str]]:
    """Every objective on every kind of pairs that it trains on, with every reference and timestep rule that fits."""
    pairs = [member() for member in get_args(get_args(Pairs)[0])]
    for objective, source in itertools.product(OBJECTIVES, pairs):
        if source.rows not in objective.rows:
            continue
        rules = ("uniform", "early", "listed") if source.rows == "clean" else ("uniform", "early")
        chosen = {"kind": source.kind} | ({"path": "a-folder"} if source.kind == "dataset" else {})
        for reference, timesteps in itertools.product(("fixed", "copied"), rules):
            kind = objective.model_fields["kind"].default
            yield {"pairs": chosen, "objective": {"kind": kind}}, reference, timesteps


def test_every_combination_is_a_valid_run_and_survives_yaml() -> None:
    found = []
    for tree, reference, timesteps in combinations():
        config = RunConfig.model_validate(
            tree | {"reference": {"kind": reference}, "timesteps": {"kind": timesteps}, "reward_scale": "snr"}
        )
        assert RunConfig.model_validate(yaml.safe_load(config.to_yaml())) == config
        found.append(config.hash())
    # DPO, RPO and SFT on step-wise and trajectory pairs (2 x 2 each) and two kinds of clean ones (2 x 3); DDPO on one.
    assert len(set(found)) == len(found) == 3 * (2 * 4 + 2 * 6) + 4


def test_nothing_changes_after_validation() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        RunConfig().train.lr = 1.0  # type: ignore[misc]


def test_acting_on_a_collapse_needs_measurements_and_guards_change_nothing_learned() -> None:
    with pytest.raises(ValidationError, match=r"guard.on_collapse = rollback acts on held-out .* set evaluation.every"):
        RunConfig.model_validate({"guard": {"on_collapse": "rollback"}, "evaluation": {"every": 0}})
    guarded = {"guard": {"on_collapse": "stop", "on_limit": "stop"}, "evaluation": {"every": 2}}
    lenient = {"train": {"max_skipped_steps": 50, "ema_decay": 0.999, "gradient_checkpointing": True}}
    assert RunConfig.model_validate(guarded | lenient).hash() == RunConfig().hash()


def test_the_number_of_workers_is_learned_from_where_they_contrast_their_pairs() -> None:
    rpo = changed(RunConfig(), "objective", {"kind": "rpo", "gather": True}, pairs=FINAL)
    assert changed(rpo, "placement.train.num", 2).hash() != rpo.hash()
    assert changed(rpo, "placement.rollout.max", 4).hash() == rpo.hash()


def test_what_is_said_to_divide_divides_by_every_number_of_workers() -> None:
    elastic = {"placement": {"train": {"num": 4, "min": 2}}}
    with pytest.raises(ValidationError, match=r"3 workers \(placement.train.min .* a multiple, 24 for instance"):
        RunConfig.model_validate(elastic | {"rollout": {"tickets_per_iteration": 16}})
    RunConfig.model_validate(elastic | {"rollout": {"tickets_per_iteration": 24}})


def test_evaluations_and_scorings_carry_no_secrets_either() -> None:
    scorer = {"scorer": "jpeg", "options": {"api_key": "abc"}}
    with pytest.raises(ValidationError, match=r"rewards.0.options.api_key carries a password or token"):
        EvaluateConfig.model_validate({"rewards": [scorer]})
    with pytest.raises(ValidationError, match=r"scorers.0.options.api_key carries a password or token"):
        ScoreConfig.model_validate({"images": "pictures", "scorers": [scorer]})
