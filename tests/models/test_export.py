from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from rayalign.config import RunConfig
from rayalign.errors import WeightsError
from rayalign.models.export import LORA_FILE, save_lora, save_model, save_policy
from rayalign.models.families import find_family, resolve_path
from rayalign.sampling.images import draw_images
from tests.models.whole import ACTOR, moved, whole_model
from tests.toys import PROMPTS, SEEDS, TOYS, model_of, nudged

SCRIPT = Path(__file__).with_name("draw_with_diffusers.py")
TWO_LEVELS = 2 / 255


def drawn_by_diffusers(folder: Path, base: Any, lora: Any = "none") -> np.ndarray:
    """(B, 3, H, W) in [0, 1], from a process that never imports rayalign."""
    prompts, out = folder / "prompts.json", folder / "images.npy"
    prompts.write_text(json.dumps(list(zip(PROMPTS, SEEDS, strict=True))))
    command = [sys.executable, SCRIPT, base, lora, prompts, out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=folder)
    assert done.returncode == 0, done.stderr
    return np.load(out).transpose(0, 3, 1, 2)


def with_dual_attention(folder: Path) -> None:
    """Makes a toy SD 3's folder an SD 3.5 Medium's: two blocks with a second, untrained attention to the picture."""
    torch.manual_seed(0)
    trained = diffusers.SD3Transformer2DModel.from_pretrained(folder, subfolder="transformer")
    dual = diffusers.SD3Transformer2DModel.from_config(trained.config | {"dual_attention_layers": (0, 1)})
    old, new = trained.state_dict(), dual.state_dict()
    new |= {name: value for name, value in old.items() if value.shape == new[name].shape}
    for name, value in old.items():
        if value.shape != new[name].shape:  # norms' modulations: of the second attention there are three more
            new[name][: len(value)] = value
    dual.load_state_dict(new)
    dual.save_pretrained(folder / "transformer")


@pytest.mark.parametrize("path", [*TOYS, "toy-sd3", "sd3.5"])
def test_plain_diffusers_draws_our_pictures_from_the_exported_lora(path: str, tmp_path: Path) -> None:
    base = shutil.copytree(resolve_path(path.replace("sd3.5", "toy-sd3")), tmp_path / "base")  # the user's own folder
    if path == "sd3.5":
        with_dual_attention(base)
    model = model_of(str(base), adapters=("policy",))
    untuned = draw_images(model, PROMPTS, SEEDS).numpy()
    arrays = nudged(model, 1, scale=0.05)
    assert path != "sd3.5" or any("attn2" in name for name in arrays)  # a LoRA for the second attention too
    assert save_lora(tmp_path / "lora", model.family, arrays) == tmp_path / "lora" / LORA_FILE
    model.weights.load("policy", arrays)
    tuned = draw_images(model, PROMPTS, SEEDS).numpy()
    assert np.abs(tuned - untuned).max() > 20 * TWO_LEVELS  # the LoRA shows
    assert np.abs(drawn_by_diffusers(tmp_path, base, tmp_path / "lora") - tuned).max() < TWO_LEVELS


@pytest.mark.parametrize("path", [*TOYS, "toy-sd3"])
def test_plain_diffusers_draws_our_pictures_from_the_exported_model(path: str, tmp_path: Path) -> None:
    model = whole_model(path, ACTOR)
    untuned = draw_images(model, PROMPTS, SEEDS).numpy()
    arrays = moved(model.weights.state(), 1, scale=0.01)
    assert save_model(tmp_path / "model", path, model.family, arrays) == tmp_path / "model"
    model.weights.load("policy", arrays)
    tuned = draw_images(model, PROMPTS, SEEDS).numpy()
    assert np.abs(tuned - untuned).max() > 20 * TWO_LEVELS
    assert np.abs(drawn_by_diffusers(tmp_path, tmp_path / "model") - tuned).max() < TWO_LEVELS


def test_an_exported_model_is_a_model_to_tune_further(tmp_path: Path) -> None:
    model = whole_model("toy-sd15", ACTOR)
    arrays = moved(model.weights.state(), 1, scale=0.01)
    folder = save_model(tmp_path / "model", "toy-sd15", model.family, arrays)
    assert find_family(str(folder)).name == "sd15"
    again = whole_model(str(folder)).weights.state("initial")
    assert again.keys() == arrays.keys()
    assert all(np.array_equal(again[name], arrays[name]) for name in arrays)  # not rounded
    renamed = {name.replace("to_q", "to_w"): value for name, value in arrays.items()}
    with pytest.raises(WeightsError, match=r"bind to no module .*to_w"):
        save_model(tmp_path / "other", "toy-sd15", model.family, renamed)
    assert not (tmp_path / "other").exists()


def test_what_was_tuned_decides_what_is_written(tmp_path: Path) -> None:
    lora = model_of("toy-sd15", adapters=("policy",))
    arrays = nudged(lora, 1)
    assert save_policy(tmp_path, RunConfig(), lora.family, arrays) == tmp_path / "lora"
    written = load_file(tmp_path / "lora" / LORA_FILE)
    assert sum(value.size for value in written.values()) == sum(value.size for value in arrays.values())
    assert not (tmp_path / "model").exists()
    config = RunConfig.model_validate({"model": {"path": "toy-sd15", "tuning": {"kind": "full"}}})
    whole = moved(whole_model("toy-sd15", ACTOR).weights.state(), 1, scale=0.01)
    assert save_policy(tmp_path, config, lora.family, whole) == tmp_path / "model"
    file = load_file(tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors")
    assert file.keys() == whole.keys()
    assert all(np.array_equal(file[name], whole[name]) for name in whole)
