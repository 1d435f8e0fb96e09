"""A model of known cost that draws nothing: for tests of the pipeline and for measuring its overhead.

`stub`, or `stub:denoise_s=0.002,train_s=0.004`: seconds one denoiser call sleeps for the batch it is given, without
gradients (sampling, reference) and with (training). It goes through the same code as a real family, LoRA included.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from rayalign.errors import ConfigError
from rayalign.models.conditioning import Conditioning
from rayalign.models.family import Family

SIDE = 8  # latent side; pixels are 8 times that
CHANNELS = 4
WIDTH = 16
DEFAULT_COST = {"denoise_s": 0.0, "train_s": 0.0}


def parse_cost(path: str) -> dict[str, float]:
    """`stub:denoise_s=0.01` -> seconds by kind. Raises ConfigError on what it does not know."""
    cost = dict(DEFAULT_COST)
    for pair in filter(None, path.partition(":")[2].split(",")):
        key, _, value = pair.partition("=")
        try:
            cost = cost | {key: float(value)} if key in cost else _refuse(path)
        except ValueError:
            _refuse(path)
    return cost


def _refuse(path: str) -> Any:
    raise ConfigError("model.path", path, f"set stub:<name>=<seconds>,... with names from {sorted(DEFAULT_COST)}")


class StubDenoiser(nn.Module):
    """A linear map over channels with the names a LoRA looks for; sleeps its cost."""

    def __init__(self, cost: dict[str, float]) -> None:
        super().__init__()
        self.cost = cost
        self.config = SimpleNamespace(in_channels=CHANNELS, sample_size=SIDE)
        self.to_q = nn.Linear(CHANNELS, WIDTH)
        self.to_k = nn.Linear(WIDTH, WIDTH)
        self.to_v = nn.Linear(WIDTH, CHANNELS)
        self.to_out = nn.ModuleList([nn.Linear(CHANNELS, CHANNELS)])

    def add_adapter(self, settings: Any, adapter_name: str) -> None:
        from peft import inject_adapter_in_model

        inject_adapter_in_model(settings, self, adapter_name)

    def forward(
        self, sample: Tensor, timestep: Tensor, encoder_hidden_states: Tensor, return_dict: bool = False
    ) -> tuple[Tensor]:
        time.sleep(self.cost["train_s" if torch.is_grad_enabled() else "denoise_s"])
        hidden = sample.permute(0, 2, 3, 1) + encoder_hidden_states.mean((1, 2)).reshape(-1, 1, 1, 1)
        for layer in (self.to_q, self.to_k, self.to_v, self.to_out[0]):
            hidden = layer(hidden)
        return (sample + 0.1 * torch.tanh(hidden.permute(0, 3, 1, 2)),)


class StubVae(nn.Module):
    dtype = torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(latent_channels=CHANNELS, scaling_factor=1.0, shift_factor=None)

    def encode(self, pixels: Tensor) -> SimpleNamespace:
        return SimpleNamespace(latents=nn.functional.pad(nn.functional.avg_pool2d(pixels, 8), (0, 0, 0, 0, 0, 1)))

    def decode(self, latents: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        return (nn.functional.interpolate(latents[:, :3], scale_factor=8.0),)


class Stub(Family):
    name = "stub"
    pipeline_class = "StubPipeline"
    denoiser_part = "unet"
    denoiser_class = "StubDenoiser"
    latent_argument = "sample"
    process = "ddim"
    required = frozenset()

    def load(self, path: str, dtype: torch.dtype) -> Any:
        from diffusers import DDIMScheduler

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            parts = {"unet": StubDenoiser(parse_cost(path)).to(dtype), "vae": StubVae()}
        scheduler = DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", set_alpha_to_one=False, steps_offset=1
        )
        return SimpleNamespace(**parts, components=parts, scheduler=scheduler, vae_scale_factor=8)

    def encode(self, pipe: Any, prompt: str) -> Conditioning:
        value = (sum(prompt.encode()) % 97) / 97
        return Conditioning(torch.full((1, 1, 4), value), torch.zeros(1, 1, 4))

    def denoiser_inputs(self, conditioning: Conditioning, negative: bool, height: int, width: int) -> dict[str, Any]:
        return {"encoder_hidden_states": conditioning.negative_embeds if negative else conditioning.embeds}

    def vae_dtype(self, dtype: torch.dtype) -> torch.dtype:
        return torch.float32

    def empty_text(self, denoiser: Any, empty: Callable[..., Tensor]) -> Conditioning:
        return Conditioning(empty(1, 4), empty(1, 4))
