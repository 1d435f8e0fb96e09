"""Guidance, time ids, pooled embeddings, kernel and VAE, all at once: our pictures are those of plain diffusers."""

from __future__ import annotations

import shutil
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch

from rayalign.models.families import resolve_path
from rayalign.models.text_to_image import TextToImage
from rayalign.sampling.images import draw_images
from tests.toys import PROMPTS, SEEDS, TOYS, answer, model_of

TWO_LEVELS = 2 / 255


def drawn_by_diffusers(path: str, **call: object) -> np.ndarray:
    """(B, 3, H, W) in [0, 1], one call a picture, with nothing of rayalign's."""
    pipe = diffusers.DiffusionPipeline.from_pretrained(resolve_path(path), safety_checker=None)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    images = [
        pipe(
            prompt,
            num_inference_steps=20,
            eta=1.0,
            generator=[torch.Generator().manual_seed(seed)],
            output_type="np",
            **call,
        ).images[0]
        for prompt, seed in zip(PROMPTS, SEEDS, strict=True)
    ]
    return np.stack(images).transpose(0, 3, 1, 2)


@pytest.mark.parametrize("guidance_scale", [5.0, 1.0])
@pytest.mark.parametrize("path", TOYS)
def test_pictures_are_those_of_the_plain_pipeline(path: str, guidance_scale: float, tmp_path: Path) -> None:
    path = str(shutil.copytree(resolve_path(path), tmp_path / "base"))
    model = model_of(path, sampler={"guidance_scale": guidance_scale})
    ours = draw_images(model, PROMPTS, SEEDS).numpy()
    theirs = drawn_by_diffusers(path, guidance_scale=guidance_scale)
    assert ours.shape == theirs.shape == (2, 3, model.resolution, model.resolution)
    assert theirs.std() > 0.01  # no blank pictures, which would agree about anything
    assert np.abs(ours - theirs).max() < TWO_LEVELS


def test_another_resolution_reaches_the_time_ids() -> None:
    model = model_of("toy-sdxl", model={"resolution": 96})
    ours = draw_images(model, PROMPTS, SEEDS).numpy()
    assert ours.shape == (2, 3, 96, 96)
    theirs = drawn_by_diffusers("toy-sdxl", guidance_scale=5.0, height=96, width=96)
    assert np.abs(ours - theirs).max() < TWO_LEVELS


@pytest.fixture(scope="module", params=TOYS)
def model(request: pytest.FixtureRequest) -> TextToImage:
    return model_of(request.param)


def test_a_calls_rows_are_counted_by_weight_set(model: TextToImage) -> None:
    model.calls.clear()
    answer(model, "policy")
    answer(model, "reference")
    answer(model, "policy")
    assert model.calls == {"policy": 4, "reference": 2}
    model.canary("policy")
    assert model.calls == {"policy": 4, "reference": 2}


def test_a_prompt_has_the_same_bits_in_any_company(model: TextToImage) -> None:
    together = model.encode([PROMPTS[1], PROMPTS[0], PROMPTS[1]])
    alone = model_of(model.family.name.replace("sd", "toy-sd")).encode([PROMPTS[0]])
    assert len(together) == 3
    assert torch.equal(together[1:2].embeds, alone.embeds)
    assert torch.equal(together[0:1].embeds, together[2:3].embeds)
    if alone.pooled is not None:
        assert torch.equal(together[1:2].pooled, alone.pooled)


def test_gradients_reach_the_policy_and_nothing_else(model: TextToImage) -> None:
    x_t = torch.randn((1, *model.latent_shape), generator=torch.Generator().manual_seed(0))
    t, text = torch.tensor([501]), model.encode(PROMPTS[:1])
    model.denoise(x_t, t, text, "policy").square().sum().backward()
    policy = model.weights.parameters("policy")
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in policy)
    ours = {id(parameter) for parameter in policy}
    assert all(parameter.grad is None for parameter in model.denoiser.parameters() if id(parameter) not in ours)
    model.denoiser.zero_grad()


def test_decode_with_grad_is_decode_and_differentiable(model: TextToImage) -> None:
    latents = torch.randn((1, *model.latent_shape), generator=torch.Generator().manual_seed(1)).requires_grad_()
    images = model.decode_with_grad(latents)
    shown = model.decode(latents)
    assert torch.equal(images.detach().clamp(0, 1), shown)
    assert 0 <= shown.min() < shown.max() <= 1
    assert not shown.requires_grad
    (grad,) = torch.autograd.grad(images.sum(), latents)
    assert grad.abs().sum() > 0


def test_a_pixel_that_overshot_can_come_back(model: TextToImage) -> None:
    """A clamp has no gradient outside [0, 1]; decode_with_grad therefore leaves it to who shows the picture."""
    generator = torch.Generator().manual_seed(1)
    latents = (5 * torch.randn((1, *model.latent_shape), generator=generator)).requires_grad_()
    images = model.decode_with_grad(latents)
    outside = (images < 0) | (images > 1)
    assert outside.any()
    (grad,) = torch.autograd.grad(images[outside].sum(), latents)
    assert grad.abs().sum() > 0
