from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderTiny

from rayalign.config import ModelConfig, RunConfig
from rayalign.models.pixels import decode_latents
from rayalign.models.vae import load_vae, model_resolution
from tests.toys import TOYS, model_of

TINY: dict[str, Any] = {
    "encoder_block_out_channels": (8, 8),
    "decoder_block_out_channels": (8, 8),
    "num_encoder_blocks": (1, 1),
    "num_decoder_blocks": (1, 1),
}


def run_on(path: str, **changes: object) -> RunConfig:
    return RunConfig(model=ModelConfig.model_validate({"path": path} | changes))


@pytest.mark.parametrize("path", ["stub", *TOYS])
def test_alone_it_is_the_models_own(path: str) -> None:
    model = model_of(path, ("policy",))
    vae = load_vae(run_on(path), "cpu")
    latents = torch.randn((2, *model.latent_shape), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(decode_latents(vae, latents).clamp(0, 1), model.decode(latents))
    assert not any(parameter.requires_grad for parameter in vae.parameters())
    assert not vae.training
    assert model_resolution(run_on(path)) == model.resolution


def test_another_vae_takes_its_place(tmp_path: Path) -> None:
    AutoencoderTiny(**TINY).save_pretrained(tmp_path)
    assert isinstance(load_vae(run_on("toy-sdxl", vae=str(tmp_path)), "cpu"), AutoencoderTiny)


def test_the_runs_resolution_comes_before_the_models() -> None:
    assert model_resolution(run_on("toy-sdxl", resolution=96)) == 96
