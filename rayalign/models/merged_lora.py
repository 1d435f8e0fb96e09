"""A base model with somebody's LoRA merged into its weights, by diffusers: of a style, or of a run to evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rayalign.config import RunConfig
from rayalign.errors import ConfigError
from rayalign.models.families import find_family, resolve_path
from rayalign.models.load import assemble, base_dtype, load_other_vae
from rayalign.models.text_to_image import TextToImage

ADAPTER = "merged"
FIELD = "style.path"  # the setting that errors name, unless another is given


def load_with_lora(
    config: RunConfig, path: str, device: str | torch.device, scale: float = 1.0, field: str = FIELD
) -> TextToImage:
    """The run's base model with the LoRA at `path` merged into its weights, to draw from as `initial`.

    Raises:
        ConfigError: no LoRA there, or one whose weights bind to no module of this model.
    """
    device = torch.device(device)
    family = find_family(config.model.path, config.model.family)
    dtype = base_dtype(config.model.dtype, device)
    pipe = family.load(resolve_path(config.model.path), dtype)
    _merge(pipe, path, scale, field)
    if config.model.vae is not None:
        pipe.vae = load_other_vae(config.model.vae)
    return assemble(pipe, family, config, device, dtype, ("policy",))


def find_lora(path: str, field: str = FIELD) -> Path:
    """The LoRA's one file. Raises ConfigError unless there is one, with LoRA weights in it."""
    from safetensors import SafetensorError, safe_open

    place = Path(path).expanduser()
    files = sorted(place.glob("*.safetensors")) if path and place.is_dir() else [place]
    if not path or len(files) != 1 or not files[0].is_file():
        fix = "is no .safetensors file, and no folder with just one; set the LoRA's file"
        raise ConfigError(field, path, fix)
    try:
        with safe_open(files[0], framework="pt") as weights:
            names = list(weights.keys())
    except (SafetensorError, OSError) as error:
        raise ConfigError(field, path, f"cannot be read ({error}); set a .safetensors file") from error
    if not any("lora" in name.lower() for name in names):
        raise ConfigError(field, path, f"holds no LoRA weights, but {names[:2]}; set the LoRA's file")
    return files[0]


def _merge(pipe: Any, path: str, scale: float, field: str) -> None:
    file = find_lora(path, field)
    try:
        pipe.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=ADAPTER)
    except Exception as error:  # keys of another model or another program raise anything
        fix = f"does not load into this model ({type(error).__name__}: {error}); set a LoRA made for it"
        raise ConfigError(field, path, fix) from error
    if not any(ADAPTER in names for names in pipe.get_list_adapters().values()):
        raise ConfigError(field, path, "binds to no module of this model; set a LoRA made for it")
    pipe.fuse_lora(lora_scale=scale)
    pipe.unload_lora_weights()
