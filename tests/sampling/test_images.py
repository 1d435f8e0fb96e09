"""That pictures are those of plain diffusers is held in tests/models/test_text_to_image.py."""

from __future__ import annotations

import torch

from rayalign.sampling.images import draw_images
from tests.toys import PROMPTS, SEEDS, model_of, nudged


def test_a_picture_belongs_to_its_prompt_and_seed() -> None:
    model = model_of("toy-sdxl", sampler={"num_steps": 4}, pairs={"kind": "final"})
    both = draw_images(model, PROMPTS, SEEDS)
    alone = draw_images(model, PROMPTS[1:], SEEDS[1:])
    torch.testing.assert_close(both[1:], alone, atol=1e-3, rtol=0)
    assert not torch.equal(draw_images(model, PROMPTS[1:], [99]), alone)


def test_the_weight_set_is_the_callers_choice() -> None:
    model = model_of("stub")
    initial = draw_images(model, PROMPTS, SEEDS, "initial")
    model.weights.load("policy", nudged(model, 1, scale=1.0))
    assert torch.equal(draw_images(model, PROMPTS, SEEDS, "initial"), initial)
    assert torch.equal(draw_images(model, PROMPTS, SEEDS, "reference"), initial)
    assert not torch.equal(draw_images(model, PROMPTS, SEEDS), initial)
    assert model.calls["initial"] == 2 * 20 * len(PROMPTS)
