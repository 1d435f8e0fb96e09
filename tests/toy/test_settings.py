from __future__ import annotations

import pytest

from rayalign.cli import parse
from rayalign.config import RunConfig
from rayalign.toy.settings import BY_CLIP, TOY, UNET_TARGETS, toy_settings

# A job's own reward, which no toy can have: its weights are not here.
JOB = {"rewards": [{"scorer": "clip"}], "pairs": {"kind": "stepwise", "tuned_steps": [20, 10]}}


def parsed(*arguments: str) -> RunConfig:
    return parse("", JOB, list(arguments))


def test_a_real_model_gets_none_of_it() -> None:
    assert toy_settings({"model": {"path": "owner/name"}}, {}) == []
    assert parsed("--model", "owner/name").scorer_names == ["clip"]


@pytest.mark.parametrize("reward", ["jpeg", "toy-clip=0.5"])
def test_a_toy_is_judged_by_what_needs_no_weights_unless_the_user_says_otherwise(reward: str) -> None:
    assert parsed("--model", "toy-sdxl").scorer_names == ["jpeg"]
    assert parsed("--model", "toy-sdxl", "--reward", reward).scorer_names == [reward.partition("=")[0]]


def test_the_toy_clip_score_alone_has_settings_of_its_own() -> None:
    by_size, by_clip = (parsed("--model", "toy-sdxl", "--reward", reward) for reward in ("jpeg", "toy-clip"))
    both = parsed("--model", "toy-sdxl", "--reward", "toy-clip", "--reward", "jpeg")
    for config in (by_size, both):
        assert config.iterations == TOY["iterations"]
        assert list(config.model.tuning.targets) == UNET_TARGETS  # type: ignore[union-attr]
    assert by_clip.iterations == BY_CLIP["iterations"]
    assert by_clip.pairs.num_candidates == 8  # type: ignore[union-attr]
    assert by_clip.model.tuning.rank == 64  # type: ignore[union-attr]


def test_settings_follow_the_choices_made() -> None:
    rpo = parsed("--model", "toy-sdxl", "--pairs.kind", "dataset", "--objective.kind", "rpo")
    assert (rpo.pairs.path, rpo.objective.embedder) == ("toy-preferences", "toy-clip")  # type: ignore[union-attr]
    sft = parsed("--model", "toy-sdxl", "--pairs.kind", "dataset", "--objective.kind", "sft")
    assert sft.objective.kind == "sft"  # and not the beta that pairs of a dataset bring for the others
    whole = parsed("--model", "toy-sd15", "--model.tuning.kind", "full")
    assert (whole.model.tuning.kind, whole.train.lr) == ("full", 1e-4)
    guided = parsed("--model", "toy-sdxl", "--pairs.guidance.enabled", "true")
    assert guided.scorer_names == ["toy-clip"]  # the one that has a gradient


def test_the_command_line_wins() -> None:
    config = parsed("--model", "toy-sdxl", "--reward", "toy-clip", "--iterations", "3", "--pairs.num_candidates", "2")
    assert (config.iterations, config.pairs.num_candidates) == (3, 2)  # type: ignore[union-attr]
