"""One text-to-image model as the rest of the package sees it: encode, denoise (guided), decode.

Latents are float32 at every boundary; the base may compute in bfloat16 or float16 inside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rayalign.algorithms.kernel import Kernel
from rayalign.models.conditioning import Conditioning, guide
from rayalign.models.family import Family
from rayalign.models.kernels import picture_kernel
from rayalign.models.pixels import decode_latents
from rayalign.models.weight_sets import WeightSet, WeightSets

CANARY_SEED = 20_250_203
# A canary of this latent size shows a wrong binding as well as a full one, in a hundredth of the time.
CANARY_LATENT = 16
# Encoded prompts kept, on the CPU: SDXL's take 0.6 MB each in half precision.
MAX_ENCODED = 1024


class TextToImage:
    """Denoiser, VAE and text encoders of one family, on one device, with the weight sets of this process."""

    def __init__(
        self,
        pipe: Any,
        family: Family,
        kernel: Kernel,
        weights: WeightSets,
        guidance_scale: float,
        resolution: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.pipe, self.family, self.kernel, self.weights = pipe, family, kernel, weights
        self.picture_kernel = picture_kernel(kernel)
        self.guidance_scale, self.resolution = guidance_scale, resolution
        self.device, self.dtype = device, dtype
        self.denoiser: nn.Module = getattr(pipe, family.denoiser_part)
        # What a training call goes through: Accelerate's wrapper (DDP) where there is one.
        self.trainable: nn.Module = self.denoiser
        self.fuses_policy = dtype == torch.float32
        self.calls: Counter[str] = Counter()  # guided denoiser evaluations of one latent, by weight set
        self._encoded: dict[str, Conditioning] = {}

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one latent."""
        side = self.resolution // self.pipe.vae_scale_factor
        return (self.pipe.vae.config.latent_channels, side, side)

    def encode(self, prompts: list[str]) -> Conditioning:
        """Conditioning of B prompts. Each distinct prompt is encoded once, alone, so its bits depend on no other."""
        missing = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._encoded]
        if missing:
            with torch.no_grad(), self._encoders_on_device():
                for prompt in missing:
                    self._encoded[prompt] = self.family.encode(self.pipe, prompt).to("cpu")
        found = [self._encoded[prompt] for prompt in prompts]
        for old in list(self._encoded)[:-MAX_ENCODED]:
            del self._encoded[old]
        return Conditioning.concatenate(found).to(self.device)

    @contextmanager
    def _encoders_on_device(self) -> Iterator[None]:
        """Text encoders stand on the CPU but when they work: SDXL's take 1.6 GB of a GPU in half precision."""
        parts = self.pipe.components.items()  # SD 3's T5 may be left out
        encoders = [part for name, part in parts if name.startswith("text_encoder") and part is not None]
        for encoder in encoders:
            encoder.to(self.device)
        yield
        for encoder in encoders:
            encoder.to("cpu")

    def denoise(self, x_t: Tensor, t_B: Tensor, text: Conditioning, weights: WeightSet = "policy") -> Tensor:
        """The guided prediction at (x_t, t), float32 (B, C, H, W). Guidance is inside, as everywhere.

        Gradients flow where the caller has them on, and then through the policy alone.
        """
        self.calls[weights] += len(x_t)
        trains = weights == "policy" and torch.is_grad_enabled()
        with self.weights.using(weights):
            return self._guided(self.trainable if trains else self.denoiser, x_t, t_B, text)

    def _guided(self, denoiser: nn.Module, x_t: Tensor, t_B: Tensor, text: Conditioning) -> Tensor:
        height, width = (side * self.pipe.vae_scale_factor for side in x_t.shape[-2:])
        if self.guidance_scale == 1:
            return self._predict(denoiser, x_t, t_B, self.family.denoiser_inputs(text, False, height, width))
        # One call for both halves: the denoiser is far from busy at small batches.
        halves = [self.family.denoiser_inputs(text, negative, height, width) for negative in (True, False)]
        doubled = self._predict(denoiser, torch.cat([x_t, x_t]), torch.cat([t_B, t_B]), _stack(*halves))
        negative, positive = doubled.chunk(2)
        return guide(negative, positive, self.guidance_scale)

    def _predict(self, denoiser: Callable[..., Any], x_t: Tensor, t_B: Tensor, inputs: dict[str, Any]) -> Tensor:
        return self.family.predict(denoiser, x_t.to(self.dtype), t_B, inputs).float()

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Clean latents (B, C, H, W) -> images in [0, 1], float32 (B, 3, height, width)."""
        return self.decode_with_grad(latents).clamp(0, 1)

    def decode_with_grad(self, latents: Tensor) -> Tensor:
        """`decode`, differentiable. Values outside [0, 1] pass too, or an overshot pixel could never come back."""
        return decode_latents(self.pipe.vae, latents)

    @torch.no_grad()
    def canary(self, weights: WeightSet) -> np.ndarray:
        """The denoiser's own answer to a fixed input, float32 (1, C, h, w): no guidance, no text encoder, no count."""
        generator = torch.Generator().manual_seed(CANARY_SEED)
        channels, height, width = self.latent_shape
        size = (1, channels, min(height, CANARY_LATENT), min(width, CANARY_LATENT))
        x_t = torch.randn(size, generator=generator).to(self.device)
        t_B = self.kernel.from_unit(torch.tensor([0.5], device=self.device))
        like = self.encode([""])
        text = like._map(lambda value: torch.randn(value.shape, generator=generator).to(value))
        inputs = self.family.denoiser_inputs(text, False, self.resolution, self.resolution)
        # The class's own forward: the trainer's Accelerate puts autocast around the instance's, rollout does not.
        plain = partial(type(self.denoiser).forward, self.denoiser)
        with self.weights.as_drawn(weights):
            return self._predict(plain, x_t, t_B, inputs).cpu().numpy()


def _stack(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two dicts of (B, ...) tensors, nested alike, joined along the batch."""
    return {
        key: _stack(value, second[key]) if isinstance(value, dict) else torch.cat([value, second[key]])
        for key, value in first.items()
    }
