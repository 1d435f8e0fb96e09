"""A LoRA under the key names of kohya's scripts, which ComfyUI and Stable Diffusion WebUI load.

The denoiser's modules keep diffusers' paths after `lora_unet_`; both programs map those to their own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from rayalign.errors import ConfigError
from rayalign.models.family import Family
from rayalign.models.weight_sets import WeightArrays
from rayalign.whole_files import share


def kohya_state(family: Family, arrays: WeightArrays) -> dict[str, torch.Tensor]:
    """LoRA arrays of `LoraWeightSets.state` -> `lora_unet_<module>.lora_down.weight`, `.lora_up.weight`, `.alpha`.

    Raises ConfigError for a family without a U-Net: ComfyUI loads SD 3's LoRA under diffusers' own names.
    """
    from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya

    if family.kohya_version is None:
        fix = f"{family.name} has no kohya names; ComfyUI loads the diffusers form, so set --to diffusers"
        raise ConfigError("--to", "kohya", fix)
    layers = {f"unet.{name}.weight": torch.from_numpy(np.array(value)) for name, value in arrays.items()}
    state = convert_state_dict_to_kohya(layers)
    # Alpha equals the rank, so that the scale is 1; a float, as other programs write it.
    return {name: value.float() if name.endswith(".alpha") else value for name, value in state.items()}


def save_kohya(file: Path, family: Family, arrays: WeightArrays, dtype: torch.dtype = torch.float32) -> Path:
    """Writes one .safetensors file; `dtype` rounds the weights. Raises as `kohya_state`."""
    state = {name: value.to(dtype).contiguous() for name, value in kohya_state(family, arrays).items()}
    ranks = {value.shape[0] for name, value in state.items() if name.endswith("lora_down.weight")}
    metadata = {
        "ss_network_module": "networks.lora",
        "ss_base_model_version": str(family.kohya_version),  # WebUI shows it, and chooses the base model by it
        "ss_network_dim": str(max(ranks)),
        "ss_network_alpha": str(max(ranks)),
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, file, metadata=metadata)
    return share(file)
