from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from rayalign.errors import ConfigError
from rayalign.models.families import FAMILIES
from rayalign.models.lora_check import check_lora_fits
from rayalign.toy import toy_path
from rayalign.weight_files import tensor_shapes

RANK = 2
# As each program writes the halves of one module's LoRA.
NAMES = {
    "peft": ("unet.{}.lora_A.weight", "unet.{}.lora_B.weight"),
    "diffusers": ("unet.{}.lora.down.weight", "unet.{}.lora.up.weight"),
    "kohya": ("lora_unet_{_}.lora_down.weight", "lora_unet_{_}.lora_up.weight"),
}


def lora_for(toy: str, kind: str, file: Path, widen: int = 0) -> Path:
    """A LoRA on all `to_k` of a toy's UNet: the ones that read the prompt's embedding."""
    base = tensor_shapes(toy_path(toy) / "unet" / "diffusion_pytorch_model.safetensors")
    tensors = {}
    for name, (wide, deep) in ((n, s) for n, s in base.items() if n.endswith("to_k.weight")):
        module = name.removesuffix(".weight")
        halves = [one.replace("{}", module).replace("{_}", module.replace(".", "_")) for one in NAMES[kind]]
        tensors[halves[0]] = np.zeros((RANK, deep + widen), np.float32)
        tensors[halves[1]] = np.zeros((wide, RANK), np.float32)
        tensors[halves[0].replace("weight", "alpha")] = np.zeros(1, np.float32)
    save_file(tensors, file)
    return file


def check(file: Path, toy: str) -> None:
    check_lora_fits(file, toy_path(toy), FAMILIES[toy.removeprefix("toy-")], "style.path")


@pytest.mark.parametrize("kind", NAMES)
def test_a_lora_of_this_model_is_taken_one_of_another_is_not(tmp_path: Path, kind: str) -> None:
    file = lora_for("toy-sdxl", kind, tmp_path / "lora.safetensors")
    check(file, "toy-sdxl")
    # SDXL's cross-attention reads 192 numbers a token on the toys, SD 1.5's 96; the modules are called alike.
    with pytest.raises(ConfigError, match=r"reads 192 numbers there and 96 in this model; set a LoRA made for this"):
        check(file, "toy-sd15")
    with pytest.raises(ConfigError, match=r"style.path = .*lora.safetensors"):
        check(lora_for("toy-sdxl", kind, file, widen=1), "toy-sdxl")


def test_modules_that_the_model_lacks_are_named(tmp_path: Path) -> None:
    file = tmp_path / "lora.safetensors"
    save_file({"unet.down_blocks.9.to_q.lora_A.weight": np.zeros((2, 4), np.float32)}, file)
    with pytest.raises(ConfigError, match="1 of its modules are not in this model's unet, down_blocks_9_to_q the firs"):
        check(file, "toy-sd15")


def test_names_of_other_programs_are_left_to_diffusers(tmp_path: Path) -> None:
    file = tmp_path / "lora.safetensors"
    for name in ("lora_unet_input_blocks_4_1_to_q.lora_down.weight", "text_encoder.x.lora_A.weight", "model.x"):
        save_file({name: np.zeros((2, 4), np.float32)}, file)
        check(file, "toy-sdxl")
