"""A LoRA merged into a base, on the toys of all families."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rayalign.errors import ConfigError
from rayalign.models.export import save_lora
from rayalign.models.families import find_family
from rayalign.models.load import load_model
from rayalign.models.merged_lora import find_lora, load_with_lora
from tests.models.test_stylise import TOYS, config, distance, drawn, nudged


@pytest.mark.parametrize("path", TOYS)
def test_a_merged_lora_draws_as_the_policy_it_was_would(path: str, tmp_path: Path) -> None:
    model = load_model(config(path), "cpu")
    weights = nudged(model, 0.2)
    save_lora(tmp_path, find_family(path), weights)
    styled = load_with_lora(config(path), str(tmp_path), "cpu")
    model.weights.load("policy", weights)
    assert distance(drawn(styled), drawn(model, "policy")) < 0.01
    assert distance(drawn(styled), drawn(model)) > 1


def test_scale_is_a_factor_on_what_the_lora_adds(tmp_path: Path) -> None:
    model = load_model(config("toy-sdxl"), "cpu")
    weights = nudged(model, 0.2)
    save_lora(tmp_path, find_family("toy-sdxl"), weights)
    doubled = load_with_lora(config("toy-sdxl"), str(tmp_path), "cpu", 2.0)
    # 2 (B A) = (2 B) A
    twice = {name: value * (2 if name.endswith("lora_B") else 1) for name, value in weights.items()}
    model.weights.load("policy", twice)
    assert distance(drawn(doubled), drawn(model, "policy")) < 0.01


def test_a_file_that_is_no_lora_is_refused(tmp_path: Path) -> None:
    for path in ("", str(tmp_path / "nothing.safetensors"), str(tmp_path)):
        with pytest.raises(ConfigError, match=r"style.path.*no folder with just one; set the LoRA's file"):
            find_lora(path)
    (tmp_path / "broken.safetensors").write_bytes(b"no header")
    with pytest.raises(ConfigError, match="cannot be read"):
        find_lora(str(tmp_path))
    save_file({"unet.conv_in.weight": torch.zeros(1)}, tmp_path / "broken.safetensors")
    with pytest.raises(ConfigError, match="holds no LoRA weights, but"):
        find_lora(str(tmp_path))


def test_a_lora_of_another_model_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.safetensors"
    names = ("unet.nowhere.to_q.lora_A.weight", "unet.nowhere.to_q.lora_B.weight")
    save_file({names[0]: torch.zeros(4, 8), names[1]: torch.zeros(8, 4)}, file)
    with pytest.raises(ConfigError, match="this model"):
        load_with_lora(config("toy-sdxl"), str(file), "cpu")
    save_lora(tmp_path, find_family("toy-sd15"), nudged(load_model(config("toy-sd15"), "cpu"), 0.1))
    with pytest.raises(ConfigError, match="this model"):
        load_with_lora(config("toy-sdxl"), str(tmp_path / "pytorch_lora_weights.safetensors"), "cpu")
