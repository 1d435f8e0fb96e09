from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
import torch.distributed as dist
from accelerate.state import AcceleratorState
from torch.nn.parallel import DistributedDataParallel

from rayalign.config import RunConfig, TrainConfig
from rayalign.errors import WeightsError
from rayalign.learning.learner import Learner, make_accelerator
from rayalign.models.families import resolve_path
from rayalign.models.full_weights import scrambled
from rayalign.models.text_to_image import TextToImage
from tests.models.whole import ACTOR, moved, whole_model
from tests.toys import PROMPTS, answer

WHOLE = {"toy-sdxl": diffusers.UNet2DConditionModel, "toy-sd3": diffusers.SD3Transformer2DModel}


@pytest.fixture(scope="module", params=list(WHOLE))
def loaded(request: pytest.FixtureRequest) -> TextToImage:
    return whole_model(request.param)


@pytest.fixture
def model(loaded: TextToImage) -> TextToImage:
    """Policy and reference with answers of their own."""
    initial = loaded.weights.state("initial")
    loaded.weights.load("policy", moved(initial, 1, 0.01))
    loaded.weights.load("reference", moved(initial, 2, 0.01))
    loaded.denoiser.zero_grad()
    return loaded


def plain(path: str) -> Any:
    """The denoiser as diffusers reads it, in float32."""
    part = "unet" if path == "toy-sdxl" else "transformer"
    return WHOLE[path].from_pretrained(resolve_path(path), subfolder=part).eval().requires_grad_(False)


def answer_of(model: TextToImage, denoiser: Any) -> torch.Tensor:
    """`answer` from another denoiser."""
    ours, model.denoiser = model.denoiser, denoiser
    try:
        return answer(model)
    finally:
        model.denoiser = ours


def gradients(model: TextToImage, between: str | None = None) -> list[torch.Tensor]:
    """Of the policy on one input; with a call of weight set `between` after its forward pass, before its backward."""
    x_t = torch.randn((1, *model.latent_shape), generator=torch.Generator().manual_seed(0))
    t, text = torch.tensor([501]), model.encode(PROMPTS[:1])
    loss = model.denoise(x_t, t, text, "policy").square().sum()
    if between is not None:
        with torch.no_grad():
            model.denoise(x_t, t, text, between)  # type: ignore[arg-type]
    loss.backward()
    found = [parameter.grad.clone() for parameter in model.weights.parameters("policy")]  # type: ignore[union-attr]
    model.denoiser.zero_grad()
    return found


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_initial_is_the_file_bit_for_bit_whatever_the_policy_became(model: TextToImage) -> None:
    untuned = plain("toy-" + model.family.name)
    assert torch.equal(answer(model, "initial"), answer_of(model, untuned))
    assert not torch.equal(answer(model), answer(model, "initial"))
    file = {name: value.numpy() for name, value in untuned.named_parameters()}
    ours = model.weights.state("initial")
    assert list(ours) == list(file)
    assert all(np.array_equal(ours[name], file[name]) for name in file)


def test_policy_and_reference_are_apart(model: TextToImage) -> None:
    policy, reference = answer(model), answer(model, "reference")
    assert not torch.equal(policy, reference)
    model.weights.load("policy", moved(model.weights.state("initial"), 3, 0.01))
    assert torch.equal(answer(model, "reference"), reference)
    model.weights.copy("policy", "reference")
    held = answer(model, "reference")
    assert torch.equal(held, answer(model))
    # A copy, not a tie: what trains later must leave the reference where it is.
    model.weights.load("policy", moved(model.weights.state("initial"), 4, 0.01))
    assert torch.equal(answer(model, "reference"), held)
    model.weights.copy("initial", "reference")
    assert torch.equal(answer(model, "reference"), answer(model, "initial"))


def shared_with_initial(model: TextToImage) -> int:
    """How many tensors of the reference take no memory of their own."""
    pairs = zip(model.weights.parameters("reference"), model.weights.parameters("initial"), strict=True)
    return sum(one.data_ptr() == other.data_ptr() for one, other in pairs)


def test_a_fixed_reference_takes_no_memory() -> None:
    model = whole_model("stub")
    count = len(model.weights.parameters())
    assert shared_with_initial(model) == count == 8  # four linear layers
    model.weights.load("policy", moved(model.weights.state(), 1, 0.1))
    assert shared_with_initial(model) == count
    model.weights.load("reference", model.weights.state("initial"))  # as a resumed run does
    assert shared_with_initial(model) == count
    initial = answer(model, "initial")
    model.weights.copy("policy", "reference")
    assert shared_with_initial(model) == 0
    assert torch.equal(answer(model, "initial"), initial)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("between", ["reference", "initial"])
def test_a_backward_pass_meets_the_weights_it_came_from(model: TextToImage, between: str, checkpointing: bool) -> None:
    expected = gradients(model)
    # Every weight of the denoiser learns, and those of the reference would give another gradient.
    assert all(torch.isfinite(grad).all() for grad in expected)
    assert len(expected) == len(list(model.denoiser.parameters()))
    if checkpointing:
        model.denoiser.enable_gradient_checkpointing()
    try:
        assert same(gradients(model, between), expected)
    finally:
        model.denoiser.disable_gradient_checkpointing()
    model.weights.copy("reference", "policy")
    assert not same(gradients(model), expected)


@pytest.fixture
def one_worker(tmp_path: Path) -> Iterator[None]:
    """A process group of one, which is all that DDP needs to hook into the parameters."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def tripled(_: object, bucket: Any) -> Any:
    done: torch.futures.Future[torch.Tensor] = torch.futures.Future()
    done.set_result(bucket.buffer() * 3)
    return done


# DDP insists on the very class in these places, which the annotations of this file are strings of.
tripled.__annotations__ = {"bucket": dist.GradBucket, "return": torch.futures.Future[torch.Tensor]}


@pytest.mark.usefixtures("one_worker")
def test_ddp_still_exchanges_after_other_sets_answered() -> None:
    model = whole_model("toy-sd3")
    model.weights.load("reference", moved(model.weights.state(), 2, 0.01))
    expected = gradients(model)
    wrapped = DistributedDataParallel(model.denoiser)

    # In place of the mean over the workers, so that what passes by shows.
    wrapped.register_comm_hook(None, tripled)
    model.trainable = wrapped
    for between in ("reference", "initial"):
        assert same(gradients(model, between), [3 * grad for grad in expected])


@pytest.mark.parametrize("name", ["reference", "initial"])
def test_using_restores_the_policy_and_who_may_train(model: TextToImage, name: Any) -> None:
    before, own = answer(model), [id(parameter) for parameter in model.denoiser.parameters()]
    with model.weights.using(name):
        assert not any(parameter.requires_grad for parameter in model.denoiser.parameters())
    with pytest.raises(RuntimeError, match="inside"), model.weights.using(name):
        raise RuntimeError("inside")
    assert torch.equal(answer(model), before)
    assert [id(parameter) for parameter in model.denoiser.parameters()] == own
    assert all(parameter.requires_grad for parameter in model.denoiser.parameters())


def test_a_process_with_the_policy_alone_answers_with_initial_until_it_loads_another() -> None:
    model = whole_model("toy-sd3", ACTOR)
    assert model.weights.names == ("initial", "policy")
    assert not any(parameter.requires_grad for parameter in model.denoiser.parameters())
    assert torch.equal(answer(model, "initial"), answer(model))
    with pytest.raises(WeightsError, match=r"no weight set 'reference' here; .* holds \('initial', 'policy'\)"):
        answer(model, "reference")
    model.weights.load("policy", moved(model.weights.state(), 1, 0.01))
    with pytest.raises(WeightsError, match=r"no weight set 'initial' here; this process holds \('policy',\)"):
        answer(model, "initial")


def test_names_and_shapes_that_do_not_fit_are_refused_before_anything_changes(model: TextToImage) -> None:
    state, before = model.weights.state(), answer(model)
    other = moved(state, 9, 0.1)
    first, *_, last = state
    renamed = {name.replace(first, "nowhere.weight"): value for name, value in other.items()}
    with pytest.raises(WeightsError, match=rf"1 bind to no module \(first: \['nowhere.weight'\]\), 1 .*{first}"):
        model.weights.load("policy", renamed)
    with pytest.raises(WeightsError, match=rf"{last} is \(\d+, 1\), this model wants \(\d+,\)"):
        model.weights.load("policy", other | {last: state[last][:, None]})
    with pytest.raises(WeightsError, match="weight set 'initial' cannot be written here"):
        model.weights.copy("policy", "initial")
    assert torch.equal(answer(model), before)
    for value in state.values():
        value[...] = 7  # a copy, which nobody reads
    assert torch.equal(answer(model), before)


def test_scrambling_by_hand() -> None:
    # 1.0 has the bits 0x3F800000: times 2654435769, modulo 2^32, its upper 24 bits as a number from -1 to 1.
    hashed = 0x3F800000 * 2654435769 % 2**32
    u = (hashed >> 8) / 2**23 - 1
    weight = torch.tensor([1.0, 0.0, -2.5])
    changed = scrambled(weight, 0.2)
    assert changed[0].item() == pytest.approx(1 + 0.2 * u, abs=1e-7)
    assert changed[1] == 0
    assert ((changed / weight)[[0, 2]] - 1).abs().max() <= 0.2
    # The next number is moved quite otherwise: the hash rises by 0.618 of its range, up or down by 1.236 or 0.764.
    following = torch.nextafter(weight[:1], torch.tensor(2.0))
    difference = abs(scrambled(following, 0.2) - changed[0]).item()
    assert min(abs(difference - 0.2 * 1.236), abs(difference - 0.2 * 0.764)) < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_scrambling_moves_by_its_factor_in_every_dtype(dtype: torch.dtype) -> None:
    weight = torch.randn(1000, generator=torch.Generator().manual_seed(0)).to(dtype)
    changed = scrambled(weight, 0.2)
    assert changed.dtype == dtype
    share = ((changed - weight).float() / weight.float()).abs()
    # Uniform on [-0.2, 0.2]: a mean absolute value of 0.1, of 1000 draws to within 6 standard errors of 0.0018.
    assert share.mean().item() == pytest.approx(0.1, abs=0.011)
    assert share.max() < 0.21


@pytest.fixture
def other_precision() -> Iterator[None]:
    """Accelerate holds one precision a process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.usefixtures("other_precision")
@pytest.mark.parametrize("mixed", ["no", "bf16"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("path", list(WHOLE))
def test_masters_are_float32_and_all_sets_compute_alike(path: str, dtype: str, mixed: str) -> None:
    model = whole_model(path, dtype=dtype)
    file = plain(path).state_dict()
    for name, value in model.weights.state("initial").items():
        assert np.array_equal(value, file[name].numpy())  # not rounded on the way
    config = RunConfig(train=TrainConfig(mixed_precision=mixed))
    learner = Learner(model, config, make_accelerator(config.train, "cpu"))
    # Nothing is learned yet, so no pair has an implicit reward: policy and reference agree to the bit.
    x_t = torch.randn((1, *model.latent_shape), generator=torch.Generator().manual_seed(0))
    arguments = x_t, torch.tensor([501]), model.encode(PROMPTS[:1])
    policy = model.denoise(*arguments, "policy")
    with torch.no_grad():
        for other in ("policy", "reference", "initial"):
            assert torch.equal(model.denoise(*arguments, other), policy)  # type: ignore[arg-type]
    policy.square().sum().backward()
    # AdamW's first step is lr along each gradient's sign: far below bfloat16's spacing, and kept.
    learner.optimizer.param_groups[0].update(lr=1e-7, weight_decay=0.0)
    learner.optimizer.step()
    after, before = model.weights.state("policy"), model.weights.state("initial")
    steps = np.concatenate([np.abs(after[name] - before[name]).ravel() for name in after])
    assert all(parameter.dtype == torch.float32 for parameter in model.weights.parameters("policy"))
    assert np.median(steps) == pytest.approx(1e-7, rel=0.1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_copies_on_the_cpu_answer_as_those_on_the_device() -> None:
    from rayalign.models.load import load_model

    answers = []
    for where in ("cpu", "device"):
        tuning = {"kind": "full", "copies_on": where}
        config = RunConfig.model_validate({"model": {"path": "toy-sd3", "tuning": tuning}})
        model = load_model(config, "cuda", ("policy", "reference"))
        model.weights.load("reference", moved(model.weights.state(), 2, 0.01))
        assert {value.device.type for value in model.weights.parameters("reference")} == {
            "cpu" if where == "cpu" else "cuda"
        }
        x_t = torch.ones((1, *model.latent_shape), device="cuda")
        with torch.no_grad():
            found = model.denoise(x_t, torch.tensor([501], device="cuda"), model.encode(PROMPTS[:1]), "reference")
        answers.append(found)
        assert {value.device.type for value in model.denoiser.parameters()} == {"cuda"}
    assert torch.equal(*answers)
