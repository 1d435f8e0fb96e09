"""Which model, in which precision, and which of its weights are tuned."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rayalign.settings import Pixels, Positive, Settings


class LoraConfig(Settings):
    kind: Literal["lora"] = "lora"
    rank: Positive = Field(4, description="rank of the LoRA (alpha equals it, so its scale is 1)")
    targets: tuple[str, ...] = Field(
        ("to_q", "to_k", "to_v", "to_out.0"), min_length=1, description="denoiser modules that get a LoRA"
    )


class FullConfig(Settings):
    """Every weight of the UNet or transformer; reference and initial are copies."""

    kind: Literal["full"] = "full"
    copies_on: Literal["cpu", "device"] = Field(
        "device", description="where copies of reference and initial weights stand; cpu saves GPU memory, costs time"
    )


class ModelConfig(Settings):
    path: str = Field(
        "toy-sdxl", min_length=1, description="hub id, local diffusers folder, toy-sd15, toy-sdxl or toy-sd3"
    )
    family: str = Field("auto", description="read from the model where 'auto'; else sd15, sdxl or sd3")
    resolution: Pixels | None = Field(None, description="pixels a side; the model's own where null")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="the denoiser computes in it (auto: bfloat16 on a GPU, else float32); what trains, float32"
    )
    vae: str | None = Field(None, description="another VAE for scoring (AutoencoderTiny or AutoencoderKL)")
    tuning: LoraConfig | FullConfig = Field(LoraConfig(), discriminator="kind", description="lora, or full weights")
