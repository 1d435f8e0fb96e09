"""The toy SD 3: the autoencoder and CLIP text encoders of the toy SDXL, a T5 encoder and a transformer trained here."""

from __future__ import annotations

import random
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextModelWithProjection, T5Config, T5EncoderModel

from rayalign.toy import shapes, training
from rayalign.toy.contrastive import FEATURES, WIDTH
from rayalign.toy.denoiser import BATCH, DROPPED, Pipeline, latents_of, save_pipeline
from rayalign.toy.tokenizer import SHORT, build_t5_tokenizer, build_tokenizer, t5_pieces

SHIFT = 3.0
"""How far the inference grid leans to the noisy end; SD 3's."""

HEADS, HEAD_WIDTH = 4, 30

LONG = 256
"""Tokens that diffusers pads T5's part of a prompt to unless told otherwise."""

LONG_SHARE = 0.01
"""Share of the batches padded so: enough that a picture comes out with either length, and little of the time."""


def new_transformer() -> SD3Transformer2DModel:
    """An untrained SD3Transformer2DModel for 8x8x4 latents: 16 tokens of 2x2, a quarter of what one a pixel costs."""
    transformer = SD3Transformer2DModel(
        sample_size=shapes.SIDE // 8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=3,
        attention_head_dim=HEAD_WIDTH,
        num_attention_heads=HEADS,
        joint_attention_dim=2 * WIDTH,
        caption_projection_dim=HEADS * HEAD_WIDTH,
        pooled_projection_dim=2 * FEATURES,
        pos_embed_max_size=shapes.SIDE // 8,  # in patches: pictures may be twice as large
        qk_norm="rms_norm",
    )
    # Each block begins as the identity, and the whole as zero ("Scalable Diffusion Models with Transformers" by
    # Peebles and Xie, arXiv 2212.09748, section 3.2): diffusers leaves this to whoever trains.
    for name, module in transformer.named_modules():
        if name == "proj_out" or name.endswith((".norm1.linear", ".norm1_context.linear")):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return transformer


def new_t5() -> T5EncoderModel:
    """An untrained T5 encoder. As wide as both CLIP encoders beside each other, which is how SD 3 lines them up."""
    config = T5Config(
        vocab_size=len(t5_pieces()),
        d_model=2 * WIDTH,
        d_kv=32,
        d_ff=WIDTH,
        num_layers=1,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    return T5EncoderModel(config)


def new_pipeline(lender: Path, parts: Path) -> Pipeline:
    """A StableDiffusion3Pipeline around what the toy SDXL in `lender` has learnt already."""
    vae = AutoencoderKL.from_pretrained(lender / "vae")
    # The pipeline adds it to every latent it decodes, and cannot add None.
    vae.register_to_config(shift_factor=0.0)
    # What is new in the first is its projection: SDXL wants no pooled embedding of it.
    first, second = (
        CLIPTextModelWithProjection.from_pretrained(lender / part, dtype=torch.float32).eval().requires_grad_(False)
        for part in ("text_encoder", "text_encoder_2")
    )
    first.text_projection.requires_grad_(True)
    return StableDiffusion3Pipeline(
        vae=vae,
        text_encoder=first,
        text_encoder_2=second,
        text_encoder_3=new_t5(),
        tokenizer=build_tokenizer(parts / "tokenizer_short", SHORT),
        tokenizer_2=build_tokenizer(parts / "tokenizer_short", SHORT),
        tokenizer_3=build_t5_tokenizer(parts / "tokenizer_3"),
        transformer=new_transformer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=SHIFT),
    )


def velocity_loss(pipeline: Pipeline, latents: Tensor, captions: list[str], length: int) -> Tensor:
    """Mean squared error of the velocity, t logit-normal ("Scaling Rectified Flow Transformers", arXiv 2403.03206).

    `latents` is (B, 4, 8, 8), scaled; `length` the tokens that T5's part of a prompt is padded to. One caption in ten
    is left out, which is what guidance compares with.
    """
    dropped = (torch.rand(len(captions)) < DROPPED).tolist()
    captions = ["" if drop else caption for drop, caption in zip(dropped, captions, strict=True)]
    noise, t_B = torch.randn_like(latents), torch.randn(len(latents)).sigmoid()
    t = t_B[:, None, None, None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        words, _, pooled, _ = pipeline.encode_prompt(
            captions, None, None, device="cpu", do_classifier_free_guidance=False, max_sequence_length=length
        )
        answer = pipeline.transformer(
            hidden_states=(1 - t) * latents + t * noise,
            timestep=1000 * t_B,
            encoder_hidden_states=words,
            pooled_projections=pooled,
            return_dict=False,
        )[0]
    return functional.mse_loss(answer.float(), noise - latents)


def train(
    lender: Path,
    parts: Path,
    folder: Path,
    minutes: float,
    seed: int = 3,
    count: int = 24_000,
    log_path: Path | None = None,
    resume: bool = False,
) -> None:
    """Train transformer, T5 and the first projection; `folder` holds a complete pipeline every few minutes.

    `resume` goes on from what is in `folder`.
    """
    log = training.Log("toy-sd3", log_path)
    torch.manual_seed(seed)
    pipeline = new_pipeline(lender, parts)
    if resume:
        earlier = DiffusionPipeline.from_pretrained(folder)
        pipeline.register_modules(transformer=earlier.transformer, text_encoder_3=earlier.text_encoder_3)
        pipeline.text_encoder.load_state_dict(earlier.text_encoder.state_dict())
    pictures, captions = training.pictures_and_captions(count, seed)
    latents = latents_of(pipeline.vae, pictures, parts / f"latents-{seed}-{count}.pt")
    projection = pipeline.text_encoder.text_projection
    learning = nn.ModuleList([pipeline.transformer, pipeline.text_encoder_3, projection]).train()
    average = training.Average(learning, decay=0.998)
    rows = training.batches(count, BATCH, seed)
    lengths = random.Random(seed)
    log(f"{training.count_parameters(learning)} parameters, {count} latents, deviation {latents.std():.3f}")

    def loss(step: int) -> tuple[Tensor, str]:
        chosen = next(rows)
        length = LONG if lengths.random() < LONG_SHARE else SHORT
        return velocity_loss(pipeline, latents[chosen], [captions[row] for row in chosen], length), ""

    def save() -> None:
        with training.averaged(learning, average):
            save_pipeline(pipeline, folder)
        log(f"saved after {average.steps} steps")

    rate = 1e-3 if resume else 2e-3
    training.train_for(minutes, list(learning.parameters()), rate, loss, log, lambda _: average.update(learning), save)
    save()
