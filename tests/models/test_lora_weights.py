"""What `test_weight_sets.py` leaves out: initial as a LoRA that adds nothing, and the transformer of SD 3."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from rayalign.algorithms.rectified_flow import RectifiedFlowKernel
from rayalign.errors import WeightsError
from rayalign.models.publish import apply, checksum, publishable
from rayalign.models.text_to_image import TextToImage
from tests.toys import answer, model_of, nudged


@pytest.fixture(scope="module")
def sd3() -> TextToImage:
    return model_of("toy-sd3")


def test_a_reference_begins_anew_from_the_initial_model() -> None:
    model = model_of("toy-sd15")
    model.weights.load("policy", nudged(model, 1))
    model.weights.copy("policy", "reference")
    policy = answer(model)
    assert not torch.equal(answer(model, "reference"), answer(model, "initial"))
    model.weights.copy("initial", "reference")
    assert torch.equal(answer(model, "reference"), answer(model, "initial"))
    assert torch.equal(answer(model), policy)
    state = model.weights.state("initial")
    assert all((value == 0).all() for name, value in state.items() if name.endswith("lora_B"))
    with pytest.raises(WeightsError, match=r"weight set 'initial' cannot be written here, only \('policy', 'refer"):
        model.weights.copy("policy", "initial")


def test_the_flow_family_is_found_and_sized(sd3: TextToImage) -> None:
    # Its transformer says sample_size 8, its VAE halves three times: 64 pixels.
    assert (sd3.family.name, sd3.resolution, sd3.latent_shape) == ("sd3", 64, (4, 8, 8))
    assert isinstance(sd3.kernel, RectifiedFlowKernel)


def test_a_transformer_takes_the_default_targets(sd3: TextToImage) -> None:
    layers = {name.rpartition(".")[0] for name in sd3.weights.state()}
    # Three blocks of one joint attention each: to_q, to_k, to_v, to_out.0.
    assert len(layers) == 3 * 4
    sd3.weights.load("policy", nudged(sd3, 1, scale=0.1))
    policy, initial = answer(sd3), answer(sd3, "initial")
    assert torch.equal(answer(sd3, "reference"), initial)
    assert not torch.equal(policy, initial)
    sd3.weights.fuse()
    # Guided velocities are as large as 20: rounding is measured by the largest.
    torch.testing.assert_close(answer(sd3), policy, atol=3e-6 * policy.abs().max().item(), rtol=0)
    sd3.weights.unfuse()
    assert torch.equal(answer(sd3, "initial"), initial)


def test_a_transformers_lora_is_published_and_checked(sd3: TextToImage) -> None:
    actor = model_of("toy-sd3", adapters=("policy",))
    arrays = nudged(sd3, 1, scale=1e-5)
    sd3.weights.load("policy", arrays)
    description = publishable(sd3, 3, arrays)
    apply(actor, description, arrays)
    torch.testing.assert_close(answer(actor), answer(sd3), atol=1e-5, rtol=1e-5)
    wrong = {name: arrays[name.replace("to_q", "to_k")] for name in arrays}
    assert any(not np.array_equal(wrong[name], arrays[name]) for name in arrays)
    with pytest.raises(WeightsError, match="bound to the wrong modules"):
        apply(actor, replace(description, checksum=checksum(wrong)), wrong)
