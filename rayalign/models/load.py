"""A model's name -> its family -> a `TextToImage` ready to use. Also the checks that need no weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import torch

from rayalign.algorithms.ddim import DDIMKernel, PredictionType
from rayalign.config import RunConfig, SamplerConfig
from rayalign.errors import ConfigError
from rayalign.models.family import Family
from rayalign.models.sd15 import SD15
from rayalign.models.sdxl import SDXL
from rayalign.models.stub import Stub
from rayalign.models.text_to_image import TextToImage
from rayalign.models.weight_sets import WeightSets
from rayalign.records import derive_seed
from rayalign.toy import TOY_MODELS, toy_path

_FAMILIES: tuple[Family, ...] = (SD15(), SDXL(), Stub())
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
    index = _read_index(resolve_path(path))
    by_class = {known.pipeline_class: known for known in FAMILIES.values()}
    class_name = str(index.get("_class_name"))
    chosen = by_class.get(class_name) if family == "auto" else FAMILIES[family]
    if chosen is None:
        raise ConfigError("model.path", path, f"it is a {class_name}; set a model that is one of {sorted(by_class)}")
    if Path(resolve_path(path)).is_dir():
        _check_parts(path, chosen, index)
    return chosen


def _read_index(path: str) -> dict[str, Any]:
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

    try:
        return DiffusionPipeline.load_config(path)
    except Exception as error:  # the hub client raises many kinds: no network, no such model, gated
        raise ConfigError("model.path", path, f"cannot be read from the hub ({error}); set a local folder") from error


def _check_parts(path: str, family: Family, index: dict[str, Any]) -> None:
    folder = Path(resolve_path(path))
    for part in family.required:
        if part not in index or not (folder / part).is_dir():
            fix = f"the folder has no {part}/, which {family.pipeline_class} needs; set a complete diffusers folder"
            raise ConfigError("model.path", path, fix)


def make_kernel(scheduler: Any, sampler: SamplerConfig) -> DDIMKernel:
    """The DDIM kernel of a pipeline's own noise schedule, whatever scheduler it ships with.

    Raises ConfigError if the network predicts what the kernel does not know, or if a tuned step has no noise, hence
    no log-probability.
    """
    from diffusers import DDIMScheduler

    ddim = DDIMScheduler.from_config(scheduler.config)
    if ddim.config.prediction_type not in get_args(PredictionType):
        fix = f"its scheduler's prediction_type is not one of {get_args(PredictionType)}; set another model"
        raise ConfigError("model.path", ddim.config.prediction_type, fix)
    ddim.set_timesteps(sampler.num_steps)
    kernel = DDIMKernel(
        abar_T=ddim.alphas_cumprod.float(),
        timesteps=tuple(int(t) for t in ddim.timesteps),
        final_abar=float(ddim.final_alpha_cumprod),
        eta=sampler.eta,
        prediction_type=ddim.config.prediction_type,
    )
    for step in sampler.tuned_steps:
        t, t_prev = (torch.tensor([value]) for value in (kernel.timestep(step), kernel.timestep_prev(step)))
        one = torch.zeros(1, 1, 1, 1)
        if kernel.transition(one, one, t, t_prev).std.item() <= 0:
            fix = f"step {step} of this scheduler adds no noise (set_alpha_to_one), so it cannot be tuned; leave it out"
            raise ConfigError("sampler.tuned_steps", sampler.tuned_steps, fix)
    return kernel


def load_model(config: RunConfig, device: str | torch.device, adapters: tuple[str, ...] = ("policy",)) -> TextToImage:
    """Loads the run's model: frozen base in its dtype, LoRA adapters in float32, everything on `device`."""
    device = torch.device(device)
    family = find_family(config.model.path, config.model.family)
    dtype = _dtype(config.model.dtype, device)
    pipe = family.load(resolve_path(config.model.path), dtype)
    if config.model.vae is not None:
        pipe.vae = _load_vae(config.model.vae)
    return assemble(pipe, family, config, device, dtype, adapters)


def assemble(
    pipe: Any, family: Family, config: RunConfig, device: torch.device, dtype: torch.dtype, adapters: tuple[str, ...]
) -> TextToImage:
    """A loaded pipeline -> the model: frozen, placed, with its adapters and the run's kernel."""
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval().to("cpu" if name.startswith("text_encoder") else device)
    pipe.vae.to(family.vae_dtype(dtype))
    weights = WeightSets(pipe.unet, config.model.lora, adapters, derive_seed(config.seed, "lora"))
    pipe.unet.to(device)
    resolution = config.model.resolution or pipe.unet.config.sample_size * pipe.vae_scale_factor
    kernel = make_kernel(pipe.scheduler, config.sampler)
    return TextToImage(pipe, family, kernel, weights, config.sampler.guidance_scale, resolution, device, dtype)


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return DTYPES[name]


def _load_vae(path: str) -> torch.nn.Module:
    from diffusers import AutoencoderKL, AutoencoderTiny

    kind = AutoencoderKL.load_config(path).get("_class_name")
    return (AutoencoderTiny if kind == "AutoencoderTiny" else AutoencoderKL).from_pretrained(path)
