"""Peers trained for days on weights bound to the wrong modules. Each way to go wrong is tried here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from rayalign.config import TrainConfig
from rayalign.errors import WeightsError
from rayalign.learning.learner import Learner, make_accelerator
from rayalign.models.publish import CANARY_STRENGTH, CANARY_TOLERANCE, amplification, apply, checksum, publishable
from rayalign.models.text_to_image import TextToImage
from rayalign.models.weight_sets import LoraArrays
from rayalign.records import PublishedWeights
from tests.toys import TOYS, answer, model_of, nudged

TINY_UPDATE = 1e-5  # about one AdamW step at the paper's learning rate, from B = 0


@pytest.fixture(scope="module", params=TOYS)
def pair(request: pytest.FixtureRequest) -> tuple[TextToImage, TextToImage]:
    """(trainer, rollout actor), two loads of one model."""
    return model_of(request.param), model_of(request.param, adapters=("policy",))


def published(trainer: TextToImage, scale: float, version: int = 3) -> tuple[PublishedWeights, LoraArrays]:
    arrays = nudged(trainer, 1, scale)
    trainer.weights.load("policy", arrays)
    return publishable(trainer, version, arrays), arrays


def swapped(arrays: LoraArrays, first: str, second: str, block: str = "") -> LoraArrays:
    """The values of two modules exchanged wherever their shapes allow it, in modules whose name holds `block`."""
    changed = dict(arrays)
    for name, value in arrays.items():
        other = name.replace(f".{first}.", f".{second}.")
        if other != name and block in name and value.shape == arrays[other].shape:
            changed[name], changed[other] = arrays[other], value
    assert checksum(changed) != checksum(arrays)
    return changed


def test_a_checksum_sees_bytes_names_shapes_and_types() -> None:
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(2, dtype=np.float32)}
    same = {name: arrays[name].copy() for name in ("b", "a")}
    assert checksum(same) == checksum(arrays)  # whatever the order
    flipped = arrays["a"].copy()
    flipped.view(np.uint8)[0, 0] ^= 1
    others = [
        arrays | {"a": flipped},
        {"a": arrays["a"], "c": arrays["b"]},
        arrays | {"b": arrays["b"].astype(np.float64)},
        arrays | {"b": arrays["b"].view(np.int32)},
        arrays | {"a": arrays["a"].reshape(3, 2)},
        {"a": arrays["a"]},
    ]
    assert len({checksum(arrays), *map(checksum, others)}) == 1 + len(others)


def test_amplification_by_hand() -> None:
    # B A = (3, 4)^T (1, 0): norm 5. Base norm 10, wanted 0.2 * 10 = 2: factor 0.4. A second module of 0 adds nothing.
    arrays = {
        "m.lora_A": np.array([[1.0, 0.0]], dtype=np.float32),
        "m.lora_B": np.array([[3.0], [4.0]], dtype=np.float32),
        "n.lora_A": np.ones((1, 2), dtype=np.float32),
        "n.lora_B": np.zeros((2, 1), dtype=np.float32),
    }
    assert amplification(arrays, 10.0) == pytest.approx(CANARY_STRENGTH * 10 / 5)
    assert amplification({name: arrays[name] for name in ("n.lora_A", "n.lora_B")}, 10.0) == 1.0


def test_a_convolution_has_a_norm_too() -> None:
    a, b = np.full((2, 3, 3, 3), 0.5), np.full((4, 2, 1, 1), 2.0)
    # B A has 4 x 27 elements of 2 * (2 * 0.5) = 2: norm 2 sqrt(108).
    assert amplification({"m.lora_A": a, "m.lora_B": b}, 1.0) == pytest.approx(CANARY_STRENGTH / (2 * 108**0.5))


@pytest.mark.parametrize("scale", [0.0, TINY_UPDATE, 0.05])
def test_good_weights_are_taken(pair: tuple[TextToImage, TextToImage], scale: float) -> None:
    trainer, actor = pair
    description, arrays = published(trainer, scale)
    assert description.version == 3
    assert description.num_bytes == sum(value.nbytes for value in arrays.values())
    before = answer(trainer)
    apply(actor, description, arrays)
    torch.testing.assert_close(answer(actor), before, atol=1e-5, rtol=1e-5)
    assert torch.equal(answer(trainer), before)  # describing the weights left them alone
    # And again on top, as in the next iteration.
    description, arrays = published(trainer, 0.03, version=4)
    apply(actor, description, arrays)
    torch.testing.assert_close(answer(actor), answer(trainer), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("block", ["", "mid_block"], ids=["everywhere", "in one block"])
@pytest.mark.parametrize("others", [("to_q", "to_k"), ("to_k", "to_v"), ("attn1", "attn2")], ids="-".join)
@pytest.mark.parametrize("scale", [TINY_UPDATE, 0.05])
def test_weights_of_another_module_are_caught(
    pair: tuple[TextToImage, TextToImage], scale: float, others: tuple[str, str], block: str
) -> None:
    trainer, actor = pair
    if block and not any(block in name for name in trainer.weights.layers):
        block = next(iter(trainer.weights.layers)).partition(".attn")[0]
    description, arrays = published(trainer, scale)
    wrong = swapped(arrays, *others, block)
    with pytest.raises(WeightsError, match=r"canary: policy version 3 .* its LoRA is bound to the wrong modules"):
        apply(actor, replace(description, checksum=checksum(wrong)), wrong)
    apply(actor, description, arrays)  # the refusal left an actor that works


@pytest.fixture
def other_precision() -> Iterator[None]:
    """Accelerate holds one precision a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("other_precision")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_trainer_under_autocast_agrees_with_an_actor_without(dtype: str) -> None:
    trainer = model_of("toy-sdxl", model={"dtype": dtype})
    config = TrainConfig(mixed_precision="bf16")
    Learner(trainer, config, make_accelerator(config, "cpu"))
    actor = model_of("toy-sdxl", adapters=("policy",), model={"dtype": dtype})
    description, arrays = published(trainer, TINY_UPDATE)
    apply(actor, description, arrays)
    assert actor.dtype == getattr(torch, dtype)
    with actor.weights.amplified(description.canary.amplification):
        if actor.fuses_policy:
            actor.weights.fuse()
        delta = actor.canary("policy") - description.canary.base
    error = np.linalg.norm(delta - description.canary.delta) / np.linalg.norm(description.canary.delta)
    assert error < CANARY_TOLERANCE[actor.dtype] / 10  # fused against unfused is all that differs
    wrong = swapped(arrays, "to_q", "to_k")
    with pytest.raises(WeightsError, match="bound to the wrong modules"):
        apply(actor, replace(description, checksum=checksum(wrong)), wrong)


def test_a_stale_version_is_caught(pair: tuple[TextToImage, TextToImage]) -> None:
    trainer, actor = pair
    description, _ = published(trainer, TINY_UPDATE)
    stale = trainer.weights.state()
    stale = {name: np.zeros_like(value) if name.endswith("B") else value for name, value in stale.items()}
    with pytest.raises(WeightsError, match="canary: policy version 3"):
        apply(actor, replace(description, checksum=checksum(stale)), stale)


def test_one_flipped_byte_is_caught(pair: tuple[TextToImage, TextToImage]) -> None:
    trainer, actor = pair
    description, arrays = published(trainer, 0.05)
    name = next(iter(arrays))
    damaged = arrays | {name: arrays[name].copy()}
    damaged[name].view(np.uint8)[0, 0] ^= 1
    with pytest.raises(WeightsError, match=f"policy version 3 arrived damaged: its checksum is {checksum(damaged)}"):
        apply(actor, description, damaged)


def test_another_base_model_is_caught(pair: tuple[TextToImage, TextToImage]) -> None:
    trainer, actor = pair
    description, arrays = published(trainer, 0.05)
    weight = actor.denoiser.conv_in.weight
    with torch.no_grad():
        original = weight.clone()
        weight.mul_(1.05)
    with pytest.raises(WeightsError, match="canary: this actor's base model is not the trainer's"):
        apply(actor, description, arrays)
    with torch.no_grad():
        weight.copy_(original)
    apply(actor, description, arrays)


def test_unknown_names_are_listed(pair: tuple[TextToImage, TextToImage]) -> None:
    trainer, actor = pair
    description, arrays = published(trainer, 0.05)
    renamed = {name.replace("to_v", "to_w"): value for name, value in arrays.items()}
    with pytest.raises(WeightsError, match=r"bind to no module .*to_w.lora_A"):
        apply(actor, replace(description, checksum=checksum(renamed)), renamed)
