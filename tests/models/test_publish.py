"""Peers trained for days on weights bound to the wrong modules. Each way to go wrong is tried here."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from rayalign.config import RunConfig, TrainConfig
from rayalign.errors import WeightsError
from rayalign.learning.learner import Learner, make_accelerator
from rayalign.models.full_weights import FullWeightSets
from rayalign.models.lora_weights import LoraWeightSets, amplification
from rayalign.models.publish import CANARY_STRENGTH, CANARY_TOLERANCE, apply, checksum, publishable
from rayalign.models.text_to_image import TextToImage
from rayalign.models.weight_sets import WeightArrays
from rayalign.records import PublishedWeights
from tests.models.whole import ACTOR, moved, whole_model
from tests.toys import TOYS, answer, model_of, nudged

TINY_UPDATE = 1e-5  # about one AdamW step at the paper's learning rate, from B = 0


@pytest.fixture(scope="module", params=TOYS)
def pair(request: pytest.FixtureRequest) -> tuple[TextToImage, TextToImage]:
    """(trainer, rollout actor), two loads of one model."""
    return model_of(request.param), model_of(request.param, adapters=("policy",))


def published(trainer: TextToImage, scale: float, version: int = 3) -> tuple[PublishedWeights, WeightArrays]:
    arrays = nudged(trainer, 1, scale)
    trainer.weights.load("policy", arrays)
    return publishable(trainer, version, arrays), arrays


def swapped(arrays: WeightArrays, first: str, second: str, block: str = "") -> WeightArrays:
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
    assert amplification(arrays, 10.0, CANARY_STRENGTH) == pytest.approx(CANARY_STRENGTH * 10 / 5)
    assert amplification({name: arrays[name] for name in ("n.lora_A", "n.lora_B")}, 10.0, CANARY_STRENGTH) == 1.0


def test_a_convolution_has_a_norm_too() -> None:
    a, b = np.full((2, 3, 3, 3), 0.5), np.full((4, 2, 1, 1), 2.0)
    # B A has 4 x 27 elements of 2 * (2 * 0.5) = 2: norm 2 sqrt(108).
    assert amplification({"m.lora_A": a, "m.lora_B": b}, 1.0, 0.2) == pytest.approx(0.2 / (2 * 108**0.5))


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
    assert isinstance(trainer.weights, LoraWeightSets)
    if block and not any(block in name for name in trainer.weights.layers):
        block = next(iter(trainer.weights.layers)).partition(".attn")[0]
    description, arrays = published(trainer, scale)
    wrong = swapped(arrays, *others, block)
    with pytest.raises(WeightsError, match=r"canary: policy version 3 .* its weights are bound to the wrong modules"):
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
    config = RunConfig(train=TrainConfig(mixed_precision="bf16"))
    Learner(trainer, config, make_accelerator(config.train, "cpu"))
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


TINY_STEP = 1e-8  # of a model that is tuned as a whole: Diffusion-DPO's learning rate, before scaling by its batch


@pytest.fixture(scope="module", params=["toy-sdxl", "toy-sd3"])
def whole_pair(request: pytest.FixtureRequest) -> tuple[TextToImage, TextToImage]:
    """(trainer, rollout actor)."""
    return whole_model(request.param), whole_model(request.param, ACTOR)


def published_whole(trainer: TextToImage, scale: float) -> tuple[PublishedWeights, WeightArrays]:
    arrays = moved(trainer.weights.state("initial"), 1, scale)
    trainer.weights.load("policy", arrays)
    return publishable(trainer, 3, arrays), arrays


def forged(description: PublishedWeights, arrays: WeightArrays) -> PublishedWeights:
    """As if these arrays had been published: a mistake made before the checksum."""
    return replace(description, checksum=checksum(arrays))


@pytest.mark.parametrize("scale", [0.0, TINY_STEP, 0.01])
def test_whole_weights_are_taken(whole_pair: tuple[TextToImage, TextToImage], scale: float) -> None:
    trainer, actor = whole_pair
    description, arrays = published_whole(trainer, scale)
    # 4 bytes a parameter: 7,383,984 and 6,037,984 for the two toys.
    assert description.num_bytes == 4 * sum(value.numel() for value in trainer.denoiser.parameters())
    before = answer(trainer)
    apply(actor, description, arrays)
    assert torch.equal(answer(actor), before)
    assert torch.equal(answer(trainer), before)  # describing the weights left them alone
    assert actor.weights.names == ("policy",)


def test_another_base_is_caught_while_it_stands() -> None:
    trainer, actor = whole_model("toy-sdxl"), whole_model("toy-sdxl", ACTOR)
    description, arrays = published_whole(trainer, 0.01)
    with torch.no_grad():
        actor.denoiser.conv_in.weight.mul_(1.05)
    with pytest.raises(WeightsError, match="canary: this actor's base model is not the trainer's"):
        apply(actor, description, arrays)


@pytest.mark.parametrize("others", [("to_q", "to_k"), ("to_k", "to_v")], ids="-".join)
@pytest.mark.parametrize("scale", [0.0, 0.01])
def test_whole_weights_of_another_module_are_caught(
    whole_pair: tuple[TextToImage, TextToImage], scale: float, others: tuple[str, str]
) -> None:
    trainer, actor = whole_pair
    description, arrays = published_whole(trainer, scale)
    wrong = swapped(arrays, *others)
    with pytest.raises(WeightsError, match=r"canary: policy version 3 .* bound to the wrong modules"):
        apply(actor, forged(description, wrong), wrong)
    apply(actor, description, arrays)  # the refusal left an actor that works


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("path", ["toy-sdxl", "toy-sd3"])
def test_stale_and_unbound_whole_weights_are_caught_after_the_smallest_step(path: str, dtype: str) -> None:
    trainer, actor = whole_model(path, dtype=dtype), whole_model(path, ACTOR, dtype=dtype)
    # In bfloat16 a smaller step changes nothing of what samples.
    description, arrays = published_whole(trainer, TINY_STEP if dtype == "float32" else 1e-6)
    stale = trainer.weights.state("initial")
    with pytest.raises(WeightsError, match="canary: policy version 3"):
        apply(actor, forged(description, stale), stale)
    apply(actor, description, arrays)
    assert {value.dtype for value in actor.denoiser.parameters()} == {actor.dtype} == {getattr(torch, dtype)}
    # The trainer's float32 weights answered as the actor's do: the whole tolerance is left for other kernels.
    with actor.weights.amplified(description.canary.amplification):
        delta = actor.canary("policy") - description.canary.base
    error = np.linalg.norm(delta - description.canary.delta) / np.linalg.norm(description.canary.delta)
    assert error < CANARY_TOLERANCE[actor.dtype] / 10
    bound_to_nothing = whole_model(path, ACTOR, dtype=dtype)
    assert isinstance(bound_to_nothing.weights, FullWeightSets)
    bound_to_nothing.weights._policy = dict(deepcopy(bound_to_nothing.denoiser).named_parameters())
    with pytest.raises(WeightsError, match="canary: policy version 3"):
        apply(bound_to_nothing, description, arrays)


def test_other_kernels_neither_raise_an_alarm_nor_hide_one(
    whole_pair: tuple[TextToImage, TextToImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, actor = whole_pair
    description, arrays = published_whole(trainer, TINY_STEP)
    draw, exact = np.random.default_rng(0), actor.canary

    def rounded_otherwise(weights: Any) -> np.ndarray:
        """As another GPU would answer: hundreds of times the effect of the step itself."""
        answered = exact(weights)
        return answered + 1e-4 * answered.std() * draw.standard_normal(answered.shape).astype(np.float32)

    monkeypatch.setattr(actor, "canary", rounded_otherwise)
    apply(actor, description, arrays)
    stale = trainer.weights.state("initial")
    with pytest.raises(WeightsError, match="canary: policy version 3"):
        apply(actor, forged(description, stale), stale)


def test_whole_weights_with_a_flipped_byte_or_unknown_names_are_caught(
    whole_pair: tuple[TextToImage, TextToImage],
) -> None:
    trainer, actor = whole_pair
    description, arrays = published_whole(trainer, 0.01)
    name = next(iter(arrays))
    damaged = arrays | {name: arrays[name].copy()}
    damaged[name].view(np.uint8)[0, 0] ^= 1
    with pytest.raises(WeightsError, match=f"policy version 3 arrived damaged: its checksum is {checksum(damaged)}"):
        apply(actor, description, damaged)
    renamed = {key.replace("to_v", "to_w"): value for key, value in arrays.items()}
    with pytest.raises(WeightsError, match=r"bind to no module .*to_w"):
        apply(actor, forged(description, renamed), renamed)
