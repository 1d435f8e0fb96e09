"""Image-to-image on the base's own weights, on the toys of all families."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from rayalign.config import RunConfig
from rayalign.config.style import ImageToImageStyle
from rayalign.errors import ConfigError
from rayalign.models.load import load_model
from rayalign.models.stub import Stub
from rayalign.models.stylise import ImageToImage, image_to_image_class
from rayalign.models.text_to_image import TextToImage
from rayalign.sampling.images import draw_images

torch.set_num_threads(1)
TOYS = ("toy-sd15", "toy-sdxl", "toy-sd3")
PROMPTS = ["a large red circle on a white ground", "a small blue square on a black ground"]
STEPS = 5


def config(path: str) -> RunConfig:
    tree = {"model": {"path": path}, "pairs": {"kind": "final"}, "sampler": {"num_steps": STEPS, "guidance_scale": 2}}
    return RunConfig.model_validate(tree)


def drawn(model: TextToImage, weights: Any = "initial") -> np.ndarray:
    images = draw_images(model, PROMPTS, [1, 2], weights).numpy().transpose(0, 2, 3, 1)
    return (images * 255).round().astype(np.uint8)


def nudged(model: TextToImage, scale: float) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {
        name: (scale * draw.standard_normal(value.shape)).astype(np.float32)
        for name, value in model.weights.state("policy").items()
    }


def distance(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - two).mean())


@pytest.mark.parametrize("path", TOYS)
def test_strength_says_how_much_of_the_picture_goes(path: str) -> None:
    model = load_model(config(path), "cpu")
    before = drawn(model)
    little, much = (
        ImageToImage(model, ImageToImageStyle(strength=strength, suffix=" and a white star"), STEPS)(
            before, PROMPTS, [3, 4]
        )
        for strength in (0.2, 1.0)
    )
    assert (little.shape, little.dtype) == (before.shape, np.uint8)
    assert 0 < distance(little, before) < distance(much, before)
    # The base is as it was, and one alone is as it is in company (to a rounding of a grey level).
    np.testing.assert_array_equal(drawn(model), before)
    alone = ImageToImage(model, ImageToImageStyle(strength=0.2, suffix=" and a white star"), STEPS)(
        before[1:], PROMPTS[1:], [4]
    )
    assert np.abs(alone.astype(int) - little[1:]).max() <= 1


def test_the_words_of_the_style_and_the_seed_are_heard() -> None:
    model = load_model(config("toy-sdxl"), "cpu")
    before = drawn(model)

    def restyled(suffix: str, seeds: list[int]) -> np.ndarray:
        return ImageToImage(model, ImageToImageStyle(strength=0.8, suffix=suffix), STEPS)(before, PROMPTS, seeds)

    first = restyled(" and a white star", [3, 4])
    np.testing.assert_array_equal(restyled(" and a white star", [3, 4]), first)
    assert distance(restyled(" and a green ring", [3, 4]), first) > 1
    assert distance(restyled(" and a white star", [5, 6]), first) > 1


def test_it_is_the_untuned_model_that_restyles() -> None:
    model = load_model(config("toy-sdxl"), "cpu")
    before = drawn(model)
    restyle = ImageToImage(model, ImageToImageStyle(suffix=" and a white star"), STEPS)
    first = restyle(before, PROMPTS, [3, 4])
    model.weights.load("policy", nudged(model, 0.2))
    assert distance(drawn(model, "policy"), before) > 1
    np.testing.assert_array_equal(restyle(before, PROMPTS, [3, 4]), first)


def test_a_family_without_such_a_pipeline_is_refused() -> None:
    with pytest.raises(ConfigError, match="no image-to-image pipeline for the family stub; set another style"):
        image_to_image_class(Stub())
