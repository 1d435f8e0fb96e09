"""What one model family must say about itself. Everything peculiar to a family sits in its one file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from rayalign.models.conditioning import Conditioning

Config = Mapping[str, Any]
"""A part's config.json."""


@dataclass(frozen=True)
class Published:
    """A published model's shapes: `denoiser` and `vae` as their diffusers classes take them."""

    denoiser: dict[str, Any]
    vae: dict[str, Any]
    text_parameters: int  # of all text encoders together


class Width(NamedTuple):
    """A width that one part of a pipeline gives and the denoiser takes; they differ if parts are of two models."""

    giver: str  # the part's folder
    given: Any
    taken: Any
    what: str


def token_width(text: Sequence[Config], denoiser: Config) -> Width:
    """Of the UNets, whose tokens are those of all text encoders side by side."""
    given = sum(one.get("hidden_size", 0) for one in text)
    return Width("text_encoder", given, denoiser.get("cross_attention_dim"), "numbers a token")


class Family(ABC):
    """One family of pipelines. `sd15.py`, `sdxl.py`, `sd3.py` and `stub.py` hold one each, listed in `families.py`."""

    name: ClassVar[str]
    pipeline_class: ClassVar[str]  # name in diffusers, as model_index.json's `_class_name` has it
    required: frozenset[str]  # components without which the model cannot run
    denoiser_part: ClassVar[str]  # the component that denoises: "unet" or "transformer"
    denoiser_class: ClassVar[str]  # its name in diffusers
    latent_argument: ClassVar[str]  # what its forward calls the noisy latent
    process: ClassVar[Literal["ddim", "flow"]]  # its transition kernel
    kohya_version: ClassVar[str | None] = None  # kohya's name of the base model, if its scripts' LoRA names fit it
    published: ClassVar[dict[str, Published]] = {}  # by hub id

    @abstractmethod
    def load(self, path: str, dtype: torch.dtype) -> Any:
        """The diffusers pipeline, on the CPU, with base weights in `dtype`."""

    @abstractmethod
    def encode(self, pipe: Any, prompt: str) -> Conditioning:
        """One prompt (and the empty one) -> Conditioning with B = 1."""

    @abstractmethod
    def denoiser_inputs(self, conditioning: Conditioning, negative: bool, height: int, width: int) -> dict[str, Any]:
        """Keyword arguments of the denoiser beyond latents and timestep, for a height x width pixel image."""

    def predict(self, denoiser: Callable[..., Any], x_t: Tensor, t_B: Tensor, inputs: dict[str, Any]) -> Tensor:
        """The denoiser's answer to latents (B, C, H, W), of that shape. One that takes latents packed does it here."""
        prediction: Tensor = denoiser(timestep=t_B, return_dict=False, **{self.latent_argument: x_t}, **inputs)[0]
        return prediction

    @abstractmethod
    def vae_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Precision the VAE can decode in without overflowing."""

    @abstractmethod
    def empty_text(self, denoiser: Any, empty: Callable[..., Tensor]) -> Conditioning:
        """A prompt's conditioning of the right shape, for plans: from the denoiser's config; `empty(L, D)` adds B."""

    def widths(self, text: Sequence[Config], vae: Config, denoiser: Config) -> list[Width]:
        """What the configs of text encoders, in their order, and VAE give to the denoiser's."""
        return [Width("vae", vae.get("latent_channels", 4), denoiser.get("in_channels", 4), "channels")]
