"""A run's model, ready to use: pipeline, family, weight sets and kernel in one `TextToImage`."""

from __future__ import annotations

from typing import Any

import torch

from rayalign.config import LoraConfig, RunConfig
from rayalign.models.families import find_family, resolve_path
from rayalign.models.family import Family
from rayalign.models.full_weights import FullWeightSets, trains_whole
from rayalign.models.kernels import check_steps, make_kernel
from rayalign.models.lora_weights import LoraWeightSets
from rayalign.models.text_to_image import TextToImage
from rayalign.models.weight_sets import WeightSets
from rayalign.records import derive_seed

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
