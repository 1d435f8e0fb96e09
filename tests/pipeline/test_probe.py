from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from rayalign.config import RunConfig
from rayalign.evaluation.drift import MEANING
from rayalign.models.load import load_model
from rayalign.models.text_to_image import TextToImage
from rayalign.pipeline.draw import evaluation_rows
from rayalign.pipeline.probe import Probe, probe_rows
from rayalign.rewards.jpeg import JpegScorer
from rayalign.rewards.local import LocalScoreFn
from tests.toys import nudged


class Red:
    differentiable = False
    needs_prompt = True
    unit = "mean of red, 0 to 1"

    def score(self, images_BCHW: np.ndarray, prompts: list[str]) -> np.ndarray:
        return images_BCHW[:, 0].mean(axis=(1, 2)).astype(np.float32)


SCORE = LocalScoreFn({"jpeg": (JpegScorer(), 2.0)}, {"red": Red()})


def settings(**evaluation: Any) -> RunConfig:
    usual = {"every": 3, "probe_prompts": 2, "probe_seeds": 2, "batch": 3}
    tree = {
        "model": {"path": "toy-sdxl"},
        "prompts": {"source": "shapes"},
        "sampler": {"num_steps": 4},
        "pairs": {"tuned_steps": [3]},
        "evaluation": usual | evaluation,
    }
    return RunConfig.model_validate(tree)


@pytest.fixture(scope="module")
def model() -> TextToImage:
    return load_model(settings(), "cpu", ("policy", "reference"))


def test_every_third_version_is_measured_the_untuned_one_too() -> None:
    assert [version for version in range(8) if Probe(settings(), None, SCORE).due(version)] == [0, 3, 6]  # type: ignore[arg-type]
    assert not any(Probe(settings(every=0), None, SCORE).due(version) for version in range(8))  # type: ignore[arg-type]


def test_checkpoints_compare_by_a_scorer_and_its_options() -> None:
    def by(scorer: Any) -> str:
        return Probe(settings(scorers=[scorer]), None, SCORE).by  # type: ignore[arg-type]

    assert by("stub") == by({"scorer": "stub"}) != by({"scorer": "stub", "options": {"rule": "red"}})


def test_its_pictures_are_not_those_of_the_comparison() -> None:
    rows = probe_rows(settings())
    assert len(rows) == 4
    assert not set(rows) & set(evaluation_rows(settings()))


def test_the_policy_is_measured_again_and_again_on_the_same_pictures(model: TextToImage) -> None:
    probe = Probe(settings(), model, SCORE)
    first, again = probe.measure(0), probe.measure(0)
    assert first.metrics() == again.metrics()
    assert (first.num_images, first.num_failed) == (4, 0)
    assert first.scores.keys() == {"jpeg", "red"}
    assert first.reward == pytest.approx(2 * first.scores["jpeg"])
    assert first.statistics.keys() == MEANING.keys()
    assert first.metrics()["heldout/red"] == first.scores["red"]
    assert first.metrics()["image/diversity"] > 0
    before = model.weights.state("policy")
    model.weights.load("policy", nudged(model, 1, scale=0.1))
    assert probe.measure(3).metrics() != first.metrics()
    model.weights.load("policy", before)


def test_it_leaves_the_training_process_as_it_was(model: TextToImage) -> None:
    model.calls.clear()
    model.calls["policy"] = 7
    torch.manual_seed(3)
    state = torch.get_rng_state()
    Probe(settings(), model, SCORE).measure(0)
    assert dict(model.calls) == {"policy": 7}
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.weights.parameters("policy"))


class NoCats(Red):
    def score(self, images_BCHW: np.ndarray, prompts: list[str]) -> np.ndarray:
        if "cat" in prompts:
            raise RuntimeError("no cats")
        return super().score(images_BCHW, prompts)


@pytest.mark.parametrize(("batch", "failed"), [(1, 1), (2, 2)])
def test_a_failed_score_is_counted_and_in_no_mean(model: TextToImage, batch: int, failed: int) -> None:
    """Of a cat and a dog: scored alone, and both in one call that fails."""
    config = settings(probe_seeds=1, batch=batch)
    config = RunConfig.model_validate(config.model_dump() | {"prompts": {"source": "animals"}})
    found = Probe(config, model, LocalScoreFn({"red": (NoCats(), 1.0)})).measure(0)
    assert (found.num_images, found.num_failed) == (2, failed)
    assert math.isnan(found.scores["red"]) == math.isnan(found.reward) == (failed == 2)
    assert math.isnan(found.statistics["diversity"])  # with one seed a prompt there is nothing to compare
