"""A model's name -> its family -> a `TextToImage` ready to use. Also the checks that need no weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from rayalign.config import LoraConfig, RunConfig
from rayalign.errors import ConfigError
from rayalign.hub import hub_silence
from rayalign.models.family import Family
from rayalign.models.full_weights import FullWeightSets, trains_whole
from rayalign.models.kernels import check_steps, make_kernel
from rayalign.models.lora_weights import LoraWeightSets
from rayalign.models.sd3 import SD3
from rayalign.models.sd15 import SD15
from rayalign.models.sdxl import SDXL
from rayalign.models.stub import Stub
from rayalign.models.text_to_image import TextToImage
from rayalign.models.weight_sets import WeightSets
from rayalign.records import derive_seed
from rayalign.toy import TOY_MODELS, toy_path

_FAMILIES: tuple[Family, ...] = (SD15(), SDXL(), SD3(), Stub())
FAMILIES = {family.name: family for family in _FAMILIES}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_path(path: str) -> str:
    """A toy's name -> its folder in this package; a folder of the user's home written out; anything else unchanged."""
    return str(toy_path(path)) if path in TOY_MODELS else str(Path(path).expanduser()) if path[0] == "~" else path


def find_family(path: str, family: str = "auto") -> Family:
    """The family a model says it is. Reads only model_index.json; local folders are checked for missing parts.

    Raises ConfigError if it cannot be read, is of another kind, or lacks a component.
    """
    if path.split(":")[0] == "stub":
        return FAMILIES["stub"]
    index = read_index(path)
    by_class = {known.pipeline_class: known for known in FAMILIES.values()}
    class_name = str(index.get("_class_name"))
    chosen = by_class.get(class_name) if family == "auto" else FAMILIES[family]
    if chosen is None:
        raise ConfigError("model.path", path, f"it is a {class_name}; set a model that is one of {sorted(by_class)}")
    if family != "auto" and by_class.get(class_name, chosen) is not chosen:
        fix = f"{path} is a {class_name}, family {by_class[class_name].name}; leave it at auto"
        raise ConfigError("model.family", family, fix)
    if Path(resolve_path(path)).is_dir():
        _check_parts(path, chosen, index)
    return chosen


def read_index(path: str) -> dict[str, Any]:
    """model_index.json of a folder, a toy or a hub id. Raises ConfigError if it cannot be read."""
    path = resolve_path(path)
    folder = Path(path)
    if folder.is_dir():
        try:
            return dict(json.loads((folder / "model_index.json").read_text()))
        except (OSError, ValueError, TypeError) as error:
            fix = f"the folder has no readable model_index.json ({error}); set a diffusers model folder"
            raise ConfigError("model.path", path, fix) from error
    if path.startswith((".", "/")) or path.count("/") != 1:
        known = ", ".join(TOY_MODELS)
        raise ConfigError("model.path", path, f"no such folder; set a folder, a hub id (owner/name) or one of: {known}")
    from diffusers import DiffusionPipeline

    silent = hub_silence()
    try:
        return DiffusionPipeline.load_config(path, local_files_only=bool(silent))
    except Exception as error:  # the hub client raises many kinds: no such model, gated, network gone
        why = f"is not in the hub's local cache, and {silent}" if silent else f"cannot be read from the hub ({error})"
        fix = "set a local folder, or see to the network" if silent else "set a local folder"
        raise ConfigError("model.path", path, f"{why}; {fix}") from error


def _check_parts(path: str, family: Family, index: dict[str, Any]) -> None:
    folder = Path(resolve_path(path))
    for part in family.required:
        if part not in index or not (folder / part).is_dir():
            fix = f"the folder has no {part}/, which {family.pipeline_class} needs; set a complete diffusers folder"
            raise ConfigError("model.path", path, fix)


def load_model(config: RunConfig, device: str | torch.device, adapters: tuple[str, ...] = ("policy",)) -> TextToImage:
    """Loads the run's model: everything on `device` and in the model's dtype, but what trains in float32."""
    device = torch.device(device)
    family = find_family(config.model.path, config.model.family)
    dtype, path = base_dtype(config.model.dtype, device), resolve_path(config.model.path)
    pipe = family.load(path, dtype)
    if config.model.tuning.kind == "full" and trains_whole(adapters) and dtype != torch.float32:
        setattr(pipe, family.denoiser_part, _unrounded(getattr(pipe, family.denoiser_part), path, family))
    if config.model.vae is not None:
        pipe.vae = load_other_vae(config.model.vae)
    return assemble(pipe, family, config, device, dtype, adapters)


def _unrounded(denoiser: torch.nn.Module, path: str, family: Family) -> torch.nn.Module:
    """The denoiser read once more, in float32: a model that is tuned as a whole must not begin from rounded weights."""
    from diffusers import ModelMixin

    if not isinstance(denoiser, ModelMixin):
        return denoiser  # the stub is in no file
    return type(denoiser).from_pretrained(path, subfolder=family.denoiser_part, torch_dtype=torch.float32)


def assemble(
    pipe: Any, family: Family, config: RunConfig, device: torch.device, dtype: torch.dtype, adapters: tuple[str, ...]
) -> TextToImage:
    """A loaded pipeline -> the model: frozen, placed, with its weight sets and the run's kernel."""
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval().to("cpu" if name.startswith("text_encoder") else device)
    pipe.vae.to(family.vae_dtype(dtype))
    denoiser = getattr(pipe, family.denoiser_part)
    weights = _weight_sets(denoiser, config, adapters, dtype)
    denoiser.to(device)
    resolution = config.model.resolution or denoiser.config.sample_size * pipe.vae_scale_factor
    kernel = make_kernel(family.process, pipe.scheduler, config.sampler)
    check_steps(kernel, config.pairs)
    return TextToImage(pipe, family, kernel, weights, config.sampler.guidance_scale, resolution, device, dtype)


def _weight_sets(
    denoiser: torch.nn.Module, config: RunConfig, adapters: tuple[str, ...], dtype: torch.dtype
) -> WeightSets:
    tuning = config.model.tuning
    if isinstance(tuning, LoraConfig):
        return LoraWeightSets(denoiser, tuning, adapters, derive_seed(config.seed, "lora"))
    return FullWeightSets(denoiser, adapters, tuning.copies_on, dtype)


def base_dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return DTYPES[name]


def load_other_vae(path: str) -> torch.nn.Module:
    from diffusers import AutoencoderKL, AutoencoderTiny

    kind = AutoencoderKL.load_config(path).get("_class_name")
    return (AutoencoderTiny if kind == "AutoencoderTiny" else AutoencoderKL).from_pretrained(path)
