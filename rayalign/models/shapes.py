"""A model's denoiser and VAE by their configuration alone, on the meta device: shapes without weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rayalign.config import ModelConfig
from rayalign.errors import ConfigError
from rayalign.models.family import Family
from rayalign.models.load import FAMILIES, find_family, resolve_path
from rayalign.models.published import PUBLISHED


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
    known = PUBLISHED.get(model.path)
    family = FAMILIES[known.family] if known else find_family(model.path, model.family)
    if family.name == "stub":
        raise ConfigError("model.path", model.path, "a stub costs nothing; set a model to plan for")
    kind = diffusers.UNet2DConditionModel if family.denoiser_part == "unet" else diffusers.SD3Transformer2DModel
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
    """Keyword arguments of the denoiser for `batch` latents, on the meta device."""
    config: Any = shapes.denoiser.config
    side = shapes.latent_side

    def empty(*shape: int) -> torch.Tensor:
        return torch.empty((batch, *shape), dtype=dtype, device="meta")

    latent = empty(config.in_channels, side, side)
    common: dict[str, Any] = {"timestep": torch.empty(batch, device="meta"), "return_dict": False}
    if shapes.family.name == "sd3":
        text = empty(333, config.joint_attention_dim) # 77 of CLIP and 256 of T5
        pooled = empty(config.pooled_projection_dim)
        return common | {"hidden_states": latent, "encoder_hidden_states": text, "pooled_projections": pooled}
    inputs: dict[str, Any] = {"sample": latent, "encoder_hidden_states": empty(77, config.cross_attention_dim)}
    if config.addition_embed_type == "text_time":
        width = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        inputs["added_cond_kwargs"] = {"text_embeds": empty(width), "time_ids": empty(6)}
    return common | inputs


def _text_parameters(folder: Path) -> int | None:
    """From the sizes of the files: of a hub's model nothing is fetched for a plan."""
    files = [file for part in folder.glob("text_encoder*") for file in part.glob("*.safetensors")]
    return sum(_parameters(file) for file in files) if files else None


def _parameters(file: Path) -> int:
    from safetensors import safe_open

    with safe_open(file, "pt") as weights:
        return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
