"""A model's denoiser and VAE by their configuration alone, on the meta device: shapes without weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rayalign.config import ModelConfig
from rayalign.errors import ConfigError
from rayalign.models.families import find_family, find_published, resolve_path
from rayalign.models.family import Family


@dataclass(frozen=True)
class Shapes:
    """Modules on the meta device; `text_parameters` of all text encoders together, null where nothing says."""

    family: Family
    denoiser: Any
    vae: Any
    text_parameters: int | None
    resolution: int  # pixels a side

    @property
    def latent_side(self) -> int:
        return self.resolution // 2 ** (len(self.vae.config.block_out_channels) - 1)


def read_shapes(model: ModelConfig) -> Shapes:
    """From a table for the published models, else from the `config.json` files of the folder or the hub.

    Raises ConfigError if they cannot be read, or for a stub, which has no shapes.
    """
    import diffusers

    diffusers.logging.set_verbosity_error()  # it warns of rounding weights, which are not there
    family, known = find_published(model.path, model.family) or (find_family(model.path, model.family), None)
    if family.name == "stub":
        raise ConfigError("model.path", model.path, "a stub costs nothing; set a model to plan for")
    kind = getattr(diffusers, family.denoiser_class)
    if known:
        trees, text = (known.denoiser, known.vae), known.text_parameters
    else:
        path = resolve_path(model.path)
        trees = (
            kind.load_config(path, subfolder=family.denoiser_part),
            diffusers.AutoencoderKL.load_config(path, subfolder="vae"),
        )
        text = _text_parameters(Path(path))  # type: ignore[assignment]
    with torch.device("meta"):
        denoiser, vae = kind.from_config(trees[0]), diffusers.AutoencoderKL.from_config(trees[1])
    side = denoiser.config.sample_size * 2 ** (len(vae.config.block_out_channels) - 1)
    return Shapes(family, denoiser.requires_grad_(False), vae.requires_grad_(False), text, model.resolution or side)


def denoiser_call(shapes: Shapes, batch: int, dtype: torch.dtype) -> dict[str, Any]:
    """What `Family.predict` takes beside the denoiser for `batch` latents, on the meta device."""

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty((batch, *shape), dtype=dtype, device="meta")

    text = shapes.family.empty_text(shapes.denoiser.config, empty)
    latent = empty(shapes.vae.config.latent_channels, shapes.latent_side, shapes.latent_side)
    inputs = shapes.family.denoiser_inputs(text, False, shapes.resolution, shapes.resolution)
    return {"x_t": latent, "t_B": torch.empty(batch, device="meta"), "inputs": inputs}


def _text_parameters(folder: Path) -> int | None:
    """From the sizes of the files: of a hub's model nothing is fetched for a plan."""
    files = [file for part in folder.glob("text_encoder*") for file in part.glob("*.safetensors")]
    return sum(_parameters(file) for file in files) if files else None


def _parameters(file: Path) -> int:
    from safetensors import safe_open

    with safe_open(file, "pt") as weights:
        return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
