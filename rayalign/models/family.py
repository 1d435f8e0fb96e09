"""What one model family must say about itself. Everything peculiar to a family sits in its one file."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import torch

from rayalign.models.conditioning import Conditioning


class Family(Protocol):
    """One family of pipelines. `sd15.py`, `sdxl.py` and `stub.py` each hold one; FLUX would be one more."""

    name: str
    pipeline_class: str  # name in diffusers, as model_index.json's `_class_name` has it
    required: tuple[str, ...]  # components without which the model cannot run
    denoiser_part: str  # the component that denoises: "unet" or "transformer"
    latent_argument: str  # what its forward calls the noisy latent
    process: Literal["ddim", "flow"]  # its transition kernel

    def load(self, path: str, dtype: torch.dtype) -> Any:
        """The diffusers pipeline, on the CPU, with base weights in `dtype`."""
        ...

    def encode(self, pipe: Any, prompt: str) -> Conditioning:
        """One prompt (and the empty one) -> Conditioning with B = 1."""
        ...

    def denoiser_inputs(self, conditioning: Conditioning, negative: bool, height: int, width: int) -> dict[str, Any]:
        """Keyword arguments of the denoiser beyond latents and timestep, for a height x width pixel image."""
        ...

    def vae_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """Precision the VAE can decode in without overflowing."""
        ...
