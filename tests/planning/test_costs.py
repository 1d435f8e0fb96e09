"""Shapes without data against the real thing: parameters, bytes and operations of models that are here."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_map

from rayalign.config import ModelConfig, RunConfig
from rayalign.models.load import load_model
from rayalign.models.shapes import denoiser_call, read_shapes
from rayalign.planning.costs import measure_costs
from rayalign.planning.live_bytes import LiveBytes, measured

SDXL = "stabilityai/stable-diffusion-xl-base-1.0"


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        ("stable-diffusion-v1-5/stable-diffusion-v1-5", 859_520_964),
        (SDXL, 2_567_463_684),
        ("stabilityai/stable-diffusion-3-medium-diffusers", 2_028_328_000),
        ("stabilityai/stable-diffusion-3.5-medium", 2_243_171_520),
        ("stabilityai/stable-diffusion-3.5-large", 8_056_627_520),
    ],
)
def test_published_models_have_their_published_size(path: str, parameters: int) -> None:
    shapes = read_shapes(ModelConfig(path=path))
    assert sum(value.numel() for value in shapes.denoiser.parameters()) == parameters
    assert all(value.is_meta for value in shapes.denoiser.parameters())


@pytest.mark.parametrize("path", ["toy-sd15", "toy-sdxl", "toy-sd3"])
def test_a_folder_is_read_as_it_is(path: str) -> None:
    shapes, model = read_shapes(ModelConfig(path=path)), load_model(RunConfig(model={"path": path}), "cpu")
    found = {name: value.shape for name, value in shapes.denoiser.named_parameters()}
    real = {name: value.shape for name, value in model.denoiser.named_parameters() if "lora" not in name}
    assert sorted(map(str, found.values())) == sorted(map(str, real.values()))
    assert shapes.resolution == model.resolution
    encoders = [part for name, part in model.pipe.components.items() if name.startswith("text_encoder")]
    counted = sum(sum(value.numel() for value in part.parameters()) for part in encoders)
    assert shapes.text_parameters == pytest.approx(counted, rel=0.01)


def test_live_bytes_of_a_layer() -> None:
    layer = nn.Linear(64, 256, bias=False, device="meta")
    found: dict[str, int] = {}
    with measured(found), torch.no_grad():
        layer(torch.empty(8, 64, device="meta"))
    assert found == {"peak": 4 * 8 * (64 + 256), "flops": 2 * 8 * 64 * 256}  # the input is made inside too


def test_what_is_freed_does_not_count() -> None:
    with LiveBytes() as memory:
        for _ in range(10):
            torch.empty(1000, device="meta")
    assert memory.peak <= 2 * 4000
    assert memory.live == 0


@pytest.mark.parametrize("path", ["toy-sd15", "toy-sdxl", "toy-sd3"])
def test_a_training_step_without_data_takes_what_a_real_one_does(path: str) -> None:
    """The same denoiser, forward and backward: memory of a real step on the CPU, by its own attention."""
    shapes = read_shapes(ModelConfig(path=path))
    planned: dict[str, int] = {}
    shapes.denoiser.requires_grad_(True)
    with measured(planned):
        shapes.family.predict(shapes.denoiser, **denoiser_call(shapes, 4, torch.float32)).sum().backward()
    real = type(shapes.denoiser).from_config(shapes.denoiser.config)
    call = tree_map(lambda value: torch.ones(value.shape), denoiser_call(shapes, 4, torch.float32))
    with LiveBytes() as memory:
        shapes.family.predict(real, **call).sum().backward()
    assert planned["peak"] == pytest.approx(memory.peak, rel=0.1)


def test_checkpointing_and_smaller_batches_save_what_they_promise() -> None:
    def peak(**train: object) -> int:
        return measure_costs(RunConfig(model={"path": "toy-sdxl"}, train=train)).train.peak

    whole = peak(micro_batch=8)
    assert peak(micro_batch=4) == pytest.approx(whole / 2, rel=0.05)
    assert peak(micro_batch=8, gradient_checkpointing=True) < 0.8 * whole  # a toy has few layers in a block
