"""The toys with a UNet: put together from the trained autoencoder and text encoders, and their UNets trained."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from rayalign.toy import autoencoder, shapes, training
from rayalign.toy.contrastive import FEATURES, WIDTH
from rayalign.toy.tokenizer import build_t5_tokenizer, build_tokenizer

BATCH = 64
DROPPED = 0.1
TIME_WIDTH = 16
TIME_IDS = (shapes.SIDE, shapes.SIDE, 0, 0, shapes.SIDE, shapes.SIDE)
"""SDXL's size conditioning: original height and width, top and left of the crop, target height and width."""

NOISE: dict[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}

Pipeline = Any
"""A StableDiffusion pipeline of any family: diffusers gives none of them types for its parts."""


def new_unet(large: bool) -> UNet2DConditionModel:
    """An untrained UNet for 8x8x4 latents: SD 1.5's inputs, or (`large`) SDXL's with its added embedding."""
    common: dict[str, Any] = {
        "sample_size": shapes.SIDE // 8,
        "block_out_channels": (64, 72),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 8,
        "attention_head_dim": 4,
    }
    if not large:
        return UNet2DConditionModel(**common, cross_attention_dim=WIDTH)
    return UNet2DConditionModel(
        **common,
        cross_attention_dim=2 * WIDTH,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_WIDTH,
        projection_class_embeddings_input_dim=FEATURES + len(TIME_IDS) * TIME_WIDTH,
    )


def new_pipeline(name: str, parts: Path) -> Pipeline:
    """The pipeline `name` with an untrained UNet and the autoencoder and text encoders found in `parts`."""
    vae = AutoencoderKL.from_pretrained(parts / "vae")
    first = CLIPTextModel.from_pretrained(parts / "text_encoder", dtype=torch.float32)
    tokenizer = build_tokenizer(parts / "tokenizer")
    if name == "toy-sd15":
        return StableDiffusionPipeline(
            vae=vae,
            text_encoder=first,
            tokenizer=tokenizer,
            unet=new_unet(large=False),
            scheduler=DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    # SDXL's own scheduler file carries the keys of other schedulers too, so that they can be made from it.
    extra = {"clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True, "sample_max_value": 1.0}
    scheduler = EulerDiscreteScheduler.from_config({**EulerDiscreteScheduler(**NOISE).config, **extra})
    return StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=first,
        text_encoder_2=CLIPTextModelWithProjection.from_pretrained(parts / "text_encoder_2", dtype=torch.float32),
        tokenizer=tokenizer,
        tokenizer_2=build_tokenizer(parts / "tokenizer"),
        unet=new_unet(large=True),
        scheduler=scheduler,
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )


def save_pipeline(pipeline: Pipeline, folder: Path) -> None:
    """Write a complete diffusers folder, in float16 and without machine paths; replaces `folder` at once."""
    draft = folder.with_name(folder.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    pipeline.save_pretrained(draft)
    for part in draft.glob("tokenizer*"):
        length = getattr(pipeline, part.name).model_max_length
        shutil.rmtree(part)
        if part.name == "tokenizer_3":
            build_t5_tokenizer(part)
        else:
            build_tokenizer(part, length)
    training.store_half(draft)
    for path in draft.rglob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    # In transformers 5 both names are one class; in 4 the short one is another, which wants one more package.
    index = draft / "model_index.json"
    index.write_text(index.read_text(encoding="utf-8").replace('"T5Tokenizer"', '"T5TokenizerFast"'), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)


def borrow(unet: UNet2DConditionModel, lender: UNet2DConditionModel) -> int:
    """Start `unet` with the weights of `lender` that fit, and return how many numbers that were.

    The toy SDXL's UNet differs from the toy SD 1.5's only where text and sizes come in, so it need not
    learn to draw from nothing.
    """
    own, lent = unet.state_dict(), lender.state_dict()
    fit = {name: lent[name].reshape(own[name].shape) for name in own if name in lent and _fits(own[name], lent[name])}
    unet.load_state_dict({**own, **fit})
    return sum(tensor.numel() for tensor in fit.values())


def _fits(own: Tensor, lent: Tensor) -> bool:
    # SDXL's linear projections are SD's convolutions of one pixel.
    return own.squeeze().shape == lent.squeeze().shape


def conditions(pipeline: Pipeline, captions: list[str]) -> tuple[Tensor, dict[str, Tensor] | None]:
    """Words (B, LENGTH, width) and SDXL's added conditions of `captions`, by the pipeline's own code.

    One caption in ten is left out, which is what guidance compares with. Without a prompt SDXL's pipeline uses zeros,
    SD 1.5's the encoding of an empty text.
    """
    large = isinstance(pipeline, StableDiffusionXLPipeline)
    dropped = torch.rand(len(captions)) < DROPPED
    if not large:
        captions = ["" if drop else caption for drop, caption in zip(dropped, captions, strict=True)]
    encoded = pipeline.encode_prompt(captions, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
    if not large:
        return encoded[0], None
    words = encoded[0].masked_fill(dropped[:, None, None], 0)
    pooled = encoded[2].masked_fill(dropped[:, None], 0)
    return words, {"text_embeds": pooled, "time_ids": torch.tensor([TIME_IDS]).expand(len(captions), -1)}


def latents_of(vae: AutoencoderKL, pictures: Tensor, cache: Path) -> Tensor:
    """Scaled latents (N, 4, 8, 8) of `pictures`; kept in the file `cache`, because encoding takes minutes."""
    if not cache.exists():
        mean, deviation = autoencoder.encode(vae, pictures)
        drafted = cache.with_name(f"{cache.name}.{os.getpid()}")
        torch.save((mean + deviation * torch.randn_like(mean)) * vae.config.scaling_factor, drafted)
        drafted.rename(cache)
    return torch.load(cache, weights_only=True)


def start(name: str, parts: Path, folder: Path, lender: Path | None, resume: bool) -> Pipeline:
    """The pipeline to train: the one in `folder` to go on with, or a new one, its UNet begun with the lender's."""
    pipeline = new_pipeline(name, parts)
    if resume:
        earlier = DiffusionPipeline.from_pretrained(folder)
        pipeline.register_modules(unet=earlier.unet, text_encoder=earlier.text_encoder)
        if name == "toy-sdxl":
            pipeline.register_modules(text_encoder_2=earlier.text_encoder_2)
    elif lender is not None:
        borrow(pipeline.unet, UNet2DConditionModel.from_pretrained(lender / "unet"))
    return pipeline


def train(
    name: str,
    parts: Path,
    folder: Path,
    minutes: float,
    seed: int = 2,
    count: int = 16_000,
    log_path: Path | None = None,
    resume: bool = False,
    lender: Path | None = None,
) -> None:
    """Train UNet and text encoders of pipeline `name`; `folder` holds a complete pipeline every few minutes.

    `resume` goes on from what is in `folder`; otherwise the UNet starts from that of the pipeline in `lender`.
    """
    log = training.Log(name, log_path)
    torch.manual_seed(seed)
    pipeline = start(name, parts, folder, lender, resume)
    pictures, captions = training.pictures_and_captions(count, seed)
    latents = latents_of(pipeline.vae, pictures, parts / f"latents-{seed}-{count}.pt")
    encoders = [pipeline.text_encoder] + ([pipeline.text_encoder_2] if name == "toy-sdxl" else [])
    learning = nn.ModuleList([pipeline.unet, *encoders]).train()
    average = training.Average(learning, decay=0.998)
    noiser = DDIMScheduler(**NOISE)
    rows = training.batches(count, BATCH, seed)
    log(f"{training.count_parameters(learning)} parameters, {count} latents, deviation {latents.std():.3f}")

    def loss(step: int) -> tuple[Tensor, str]:
        chosen = next(rows)
        words, added = conditions(pipeline, [captions[row] for row in chosen])
        noise = torch.randn(BATCH, *latents.shape[1:])
        times = torch.randint(0, NOISE["num_train_timesteps"], (BATCH,))
        noisy = noiser.add_noise(latents[chosen], noise, times)
        return functional.mse_loss(pipeline.unet(noisy, times, words, added_cond_kwargs=added).sample, noise), ""

    def save() -> None:
        with training.averaged(learning, average):
            save_pipeline(pipeline, folder)
        log(f"saved after {average.steps} steps")

    # A text encoder's last layers do nothing for SDXL's words: what gets no gradient is left as it is.
    rate = 8e-4 if resume else 1.5e-3
    training.train_for(minutes, list(learning.parameters()), rate, loss, log, lambda _: average.update(learning), save)
    save()
