"""The autoencoder of the toy pipelines: 64x64 pictures to 8x8x4 latents and back."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from rayalign.toy import shapes, training

BATCH = 8
KL_WEIGHT = 1e-4
L1_WEIGHT = 0.5
EDGE_WEIGHT = 0.1
OVERSHOOT = 0.35


def new_autoencoder() -> AutoencoderKL:
    """An untrained AutoencoderKL of factor 8, Stable Diffusion's class, a hundredth its size."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 24, 48, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=shapes.SIDE,
    )


def reconstruction_loss(vae: AutoencoderKL, pictures: Tensor) -> tuple[Tensor, str]:
    """Squared error (right colours), L1 on pixels and their differences (sharp edges), a little KL.

    `pictures` is (B, 3, 64, 64) in -1..1.
    """
    posterior = vae.encode(pictures).latent_dist
    # Guidance overshoots: its latents are larger than those of any picture, and should look no different.
    latents = posterior.sample() * (1 + OVERSHOOT * torch.rand(len(pictures), 1, 1, 1))
    drawn = vae.decode(latents).sample.float()
    error = drawn - pictures
    square, pixels = (error**2).mean(), error.abs().mean()
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
    loss = square + L1_WEIGHT * pixels + EDGE_WEIGHT * edges + KL_WEIGHT * kl
    return loss, f"mse {square.item():.4f} l1 {pixels.item():.4f} kl {kl.item():.2f}"


@torch.no_grad()
def encode(vae: AutoencoderKL, pictures: Tensor, size: int = 250) -> tuple[Tensor, Tensor]:
    """Mean and deviation, each (N, 4, 8, 8) and unscaled, of the latents of uint8 pictures."""
    parts = []
    for part in pictures.split(size):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            parts.append(vae.encode(training.to_unit(part)).latent_dist)
    return torch.cat([p.mean.float() for p in parts]), torch.cat([p.std.float() for p in parts])


def set_scale(vae: AutoencoderKL, pictures: Tensor) -> None:
    """Set `scaling_factor` so that scaled latents have a standard deviation of one."""
    mean, deviation = encode(vae, pictures)
    vae.register_to_config(scaling_factor=1 / (mean + deviation * torch.randn_like(mean)).std().item())


def train(
    folder: Path,
    minutes: float,
    seed: int = 0,
    count: int = 20_000,
    log_path: Path | None = None,
    resume: bool = False,
) -> None:
    """Train for `minutes` and save into `folder`, also on the way; `resume` goes on from the weights there."""
    log = training.Log("vae", log_path)
    torch.manual_seed(seed)
    pictures, _ = training.pictures_and_captions(count, seed)
    vae = AutoencoderKL.from_pretrained(folder) if resume else new_autoencoder()
    average = training.Average(vae, decay=0.998)
    rows = training.batches(count, BATCH, seed)
    log(f"{training.count_parameters(vae)} parameters, {count} pictures")

    def save() -> None:
        with training.averaged(vae, average):
            set_scale(vae, pictures[:1000])
            vae.save_pretrained(folder)
        for stale in folder.parent.glob("latents-*.pt"):
            stale.unlink()
        log(f"saved; scaling_factor {vae.config.scaling_factor:.4f}")

    def loss(step: int) -> tuple[Tensor, str]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return reconstruction_loss(vae, training.to_unit(pictures[next(rows)]))

    training.train_for(minutes, list(vae.parameters()), 1e-3, loss, log, lambda _: average.update(vae), save)
    save()
