from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel

from rayalign.errors import WeightsError
from rayalign.models.families import resolve_path
from rayalign.models.text_to_image import TextToImage
from tests.toys import TOYS, answer, model_of, nudged


@pytest.fixture(scope="module", params=TOYS)
def loaded(request: pytest.FixtureRequest) -> TextToImage:
    return model_of(request.param)


@pytest.fixture
def model(loaded: TextToImage) -> TextToImage:
    """Policy and reference with answers of their own, unfused."""
    loaded.weights.unfuse()
    loaded.weights.load("policy", nudged(loaded, 1))
    loaded.weights.load("reference", nudged(loaded, 2))
    return loaded


def test_initial_is_the_base_bit_for_bit(model: TextToImage) -> None:
    tuned = answer(model)
    with_adapters = answer(model, "initial")
    assert not torch.equal(tuned, with_adapters)
    adapted = model.denoiser
    name = {"sd15": "toy-sd15", "sdxl": "toy-sdxl"}[model.family.name]
    try:
        model.denoiser = UNet2DConditionModel.from_pretrained(resolve_path(name), subfolder="unet").eval()
        plain = answer(model)
    finally:
        model.denoiser = adapted
    assert torch.equal(with_adapters, plain)


def test_policy_and_reference_are_apart(model: TextToImage) -> None:
    policy, reference = answer(model), answer(model, "reference")
    assert not torch.equal(policy, reference)
    model.weights.load("policy", nudged(model, 3))
    assert torch.equal(answer(model, "reference"), reference)
    assert not torch.equal(answer(model), policy)
    model.weights.copy("policy", "reference")
    assert torch.equal(answer(model, "reference"), answer(model))
    # A copy, not a tie: what trains later must leave the reference where it is.
    before = answer(model, "reference")
    model.weights.load("policy", nudged(model, 4))
    assert torch.equal(answer(model, "reference"), before)


@pytest.mark.parametrize("name", ["reference", "initial"])
def test_using_restores_the_policy_and_who_may_train(model: TextToImage, name: str) -> None:
    before = answer(model)
    with pytest.raises(RuntimeError, match="inside"), model.weights.using(name):
        raise RuntimeError("inside")
    assert torch.equal(answer(model), before)
    trainable = {id(parameter) for parameter in model.denoiser.parameters() if parameter.requires_grad}
    assert trainable == {id(parameter) for parameter in model.weights.parameters("policy")}


def test_an_unknown_set_is_refused() -> None:
    alone = model_of("stub", adapters=("policy",))
    with pytest.raises(WeightsError, match=r"no weight set 'reference' here; .* holds \('initial', 'policy'\)"):
        answer(alone, "reference")


def test_fused_answers_as_unfused_and_unfusing_restores_every_bit(model: TextToImage) -> None:
    initial, policy = answer(model, "initial"), answer(model)
    model.weights.fuse()
    torch.testing.assert_close(answer(model), policy, atol=1e-5, rtol=1e-5)
    with pytest.raises(WeightsError, match=r"unfuse\(\) before asking for 'initial'"):
        answer(model, "initial")
    model.weights.unfuse()
    assert torch.equal(answer(model, "initial"), initial)
    assert torch.equal(answer(model), policy)


def test_fusing_version_after_version_leaves_no_residue(model: TextToImage) -> None:
    def fused(*seeds: int) -> torch.Tensor:
        for seed in seeds:
            model.weights.load("policy", nudged(model, seed, scale=0.1))
            model.weights.fuse()
        return answer(model)

    direct = fused(8)
    assert torch.equal(fused(5, 6, 7, 8), direct)
    model.weights.unfuse()
    assert torch.equal(fused(8), direct)


def test_amplified_scales_the_effect_and_goes_back(model: TextToImage) -> None:
    before = answer(model)
    with model.weights.amplified(0.0):
        assert torch.equal(answer(model), answer(model, "initial"))
    with model.weights.amplified(3.0):
        tripled = answer(model)
    assert torch.equal(answer(model), before)
    # 3 B A is B A of a thrice as large B.
    state = model.weights.state()
    model.weights.load("policy", {name: value * (3 if name.endswith("B") else 1) for name, value in state.items()})
    torch.testing.assert_close(answer(model), tripled, atol=1e-5, rtol=1e-5)


def test_state_is_a_copy_and_loads_back(model: TextToImage) -> None:
    state = model.weights.state()
    before = answer(model)
    for value in model.weights.state().values():
        value[:] = 7
    assert torch.equal(answer(model), before)
    model.weights.load("policy", nudged(model, 9))
    model.weights.load("policy", state)
    assert torch.equal(answer(model), before)
    assert all((value == state[name]).all() for name, value in model.weights.state().items())
    assert len(state) == len(model.weights.parameters("policy"))


def test_names_and_shapes_that_do_not_fit_are_refused_before_anything_changes(model: TextToImage) -> None:
    state, before = model.weights.state(), answer(model)
    name = next(iter(state))
    renamed = {key.replace("attn1", "attn9"): value for key, value in nudged(model, 9).items()}
    with pytest.raises(WeightsError, match=r"bind to no module \(first: \['.*attn9.*modules get none \(first: .*attn1"):
        model.weights.load("policy", renamed)
    with pytest.raises(WeightsError, match=f"0 bind to no module .* 1 modules get none .first: .'{name}'"):
        model.weights.load("policy", {key: value for key, value in state.items() if key != name})
    last = list(state)[-1]
    wrong = nudged(model, 9) | {last: state[last][:, :1]}
    with pytest.raises(WeightsError, match=r"lora_B is \(\d+, 1\), this model wants \(\d+, 4\)"):
        model.weights.load("policy", wrong)
    assert torch.equal(answer(model), before)
