"""Whether a LoRA file was made for a base model, by the shapes in both headers: no weight is read.

Names of a LoRA, for the base's matrix `down_blocks.0...to_q.weight` of the part `unet` (out x in):

    peft      unet.down_blocks.0...to_q.lora_A.weight (rank x in), .lora_B.weight (out x rank)
    diffusers unet.down_blocks.0...to_q.lora.down.weight, .lora.up.weight
    kohya     lora_unet_down_blocks_0_..._to_q.lora_down.weight, .lora_up.weight
"""

from __future__ import annotations

import re
from pathlib import Path

from rayalign.errors import ConfigError
from rayalign.models.family import Family
from rayalign.weight_files import Shapes, part_files, tensor_shapes

HALF = re.compile(r"(.+?)(?:\.lora)?[._](?:lora_)?(A|B|down|up)(?:\.default)?\.weight")
IN_HALVES = ("A", "down")  # rank x in; the others are out x rank


def check_lora_fits(file: Path, folder: Path, family: Family, field: str) -> None:
    """Raises ConfigError, naming a module, if the LoRA is of another base than the model in `folder`.

    A LoRA in names that are none of the above is let through: diffusers may know them.
    """
    part = family.denoiser_part
    files = part_files(folder / part, "diffusion_pytorch_model")
    if any(one.suffix != ".safetensors" for one in files):
        return
    base: Shapes = {}
    for one in files:
        base |= {name.removesuffix(".weight").replace(".", "_"): s for name, s in tensor_shapes(one).items()}
    halves = {}
    for name, shape in tensor_shapes(file).items():
        match = HALF.fullmatch(name)
        if match and match[1].startswith((f"{part}.", f"lora_{part}_")):
            module = match[1].removeprefix(f"{part}.").removeprefix(f"lora_{part}_").replace(".", "_")
            module = module.replace("_processor_", "_").removesuffix("_lora")
            halves[module, match[2]] = shape
    strange = sorted({module for module, _ in halves if module not in base})
    # Names of Stability's own code stand for the same modules, and are translated when the LoRA is loaded.
    if len(strange) == len({module for module, _ in halves}) and any("input_blocks" in name for name in strange):
        return
    if strange:
        fix = f"{len(strange)} of its modules are not in this model's {part}, {strange[0]} the first; "
        raise ConfigError(field, str(file), f"{fix}set a LoRA made for this model")
    for (module, half), shape in halves.items():
        axis = 1 if half in IN_HALVES else 0
        if len(shape) > axis and shape[axis] != base[module][axis]:
            side = "reads" if half in IN_HALVES else "writes"
            fix = f"{module} {side} {shape[axis]} numbers there and {base[module][axis]} in this model; "
            raise ConfigError(field, str(file), f"{fix}set a LoRA made for this model")
