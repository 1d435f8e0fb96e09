"""What one call of a model's parts takes, in bytes and operations, from its shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from rayalign.config import LoraConfig, RunConfig
from rayalign.learning.optimizer import state_bytes
from rayalign.models.load import base_dtype
from rayalign.models.lora_weights import LoraWeightSets
from rayalign.models.shapes import Shapes, denoiser_call, read_shapes
from rayalign.planning.live_bytes import measured

GPU = torch.device("cuda")  # what is planned for, wherever the plan is made

WITH_REFERENCE = ("dpo", "rpo")  # objectives that ask the reference too


@dataclass(frozen=True)
class Call:
    """Working memory at its peak, beside the weights, and floating-point operations (a multiply-add counts two)."""

    peak: int
    flops: int


@dataclass(frozen=True)
class Costs:
    """Of one model as one run uses it. A denoiser call is a guided one, both halves included."""

    denoiser_parameters: int
    vae_parameters: int
    text_parameters: int | None
    tuned_parameters: int
    optimizer_bytes: int
    bytes_per_weight: int
    draw: Call  # one denoiser call of a ticket's samples, without gradients
    decode: Call  # the VAE on one ticket's samples
    train: Call  # policy and reference forward and the backward pass of one micro-batch
    text_weights: int  # bytes on the GPU while prompts are encoded

    @property
    def base_weights(self) -> int:
        """Bytes of the denoiser and the VAE in the base's precision."""
        return (self.denoiser_parameters + self.vae_parameters) * self.bytes_per_weight


def measure_costs(config: RunConfig, sampled: Costs | None = None) -> Costs:
    """Runs the model's parts on tensors without data: seconds, on any machine.

    `sampled`: costs of a run that samples alike, whose calls need not be measured again.

    Raises ConfigError if the model's configuration cannot be read.
    """
    shapes, dtype = read_shapes(config.model), base_dtype(config.model.dtype, GPU)
    shapes.denoiser.to(dtype)
    shapes.vae.to(shapes.family.vae_dtype(dtype))
    halves = 1 if config.sampler.guidance_scale == 1 else 2
    batch = config.rollout.samples_per_ticket
    parts: dict[str, Any] = {
        "denoiser_parameters": sum(value.numel() for value in shapes.denoiser.parameters()),
        "vae_parameters": sum(value.numel() for value in shapes.vae.parameters()),
        "draw": sampled.draw if sampled else _without_gradients(shapes, batch * halves, dtype),
        "decode": sampled.decode if sampled else _decode(shapes, batch),
    }
    train, tuned = _train(config, shapes, dtype, halves)
    size = dtype.itemsize
    text = shapes.text_parameters
    return Costs(
        text_parameters=text,
        tuned_parameters=sum(value.numel() for value in tuned),
        optimizer_bytes=state_bytes(tuned, config.train),
        bytes_per_weight=size,
        train=train,
        text_weights=(text or 0) * size,
        **parts,
    )


def _without_gradients(shapes: Shapes, batch: int, dtype: torch.dtype) -> Call:
    found: dict[str, int] = {}
    with measured(found), torch.no_grad():
        shapes.family.predict(shapes.denoiser, **denoiser_call(shapes, batch, dtype))
    return Call(found["peak"], found["flops"])


def _decode(shapes: Shapes, batch: int) -> Call:
    vae, found = shapes.vae, dict[str, int]()
    side, channels = shapes.latent_side, vae.config.latent_channels
    latents = torch.empty((batch, channels, side, side), dtype=next(vae.parameters()).dtype, device="meta")
    with measured(found), torch.no_grad():
        vae.decode(latents)
    return Call(found["peak"], found["flops"])


def _train(config: RunConfig, shapes: Shapes, dtype: torch.dtype, halves: int) -> tuple[Call, list[torch.Tensor]]:
    """One micro-batch, and the parameters that are tuned. Works on the denoiser, and leaves it changed."""
    denoiser = shapes.denoiser
    if isinstance(config.model.tuning, LoraConfig):
        LoraWeightSets(denoiser, config.model.tuning, ("policy",), seed=0)
        denoiser.to(dtype)  # as mixed precision computes; their float32 copies are counted apart
    else:
        denoiser.requires_grad_(True)
    tuned = [value for value in denoiser.parameters() if value.requires_grad]
    if config.train.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()
    denoiser.train()
    # A step-wise pair is one x_t; every other pair is two latents, in one call.
    rows = config.train.micro_batch * (1 if config.pairs.rows in ("stepwise", "sample") else 2)
    call, found = denoiser_call(shapes, rows * halves, dtype), dict[str, int]()
    with measured(found):
        if config.objective.kind in WITH_REFERENCE:
            with torch.no_grad():
                shapes.family.predict(denoiser, **call)
        shapes.family.predict(denoiser, **call).float().sum().backward()
    # Gradients are counted apart, with the optimiser.
    gradients = sum(value.numel() for value in tuned) * dtype.itemsize
    return Call(max(found["peak"] - gradients, 0), found["flops"]), tuned
