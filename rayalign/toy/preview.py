"""Draw a grid of pictures with a toy pipeline: `python -m rayalign.toy.preview toy-sd15 --out grid.png`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rayalign.toy import TOY_MODELS, shapes, toy_path

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL import Image


def load(name: str) -> DiffusionPipeline:
    """The toy pipeline `name`: with a DDIM scheduler, which is what training by reward uses, or toy-sd3's own flow."""
    from diffusers import DDIMScheduler, DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(toy_path(name))
    if name != "toy-sd3":
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(
    pipeline: DiffusionPipeline,
    prompts: list[str],
    seed: int,
    steps: int = 20,
    eta: float = 1.0,
    guidance: float = 5.0,
) -> list[Image.Image]:
    """One picture for each prompt; the same seed and prompts draw the same pictures. toy-sd3 has no use for `eta`."""
    import torch

    generators = [torch.Generator().manual_seed(seed * 10_007 + index) for index in range(len(prompts))]
    side = shapes.SIDE
    t5 = getattr(pipeline, "tokenizer_3", None)
    return pipeline(
        prompts,
        height=side,
        width=side,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=generators,
        **({"eta": eta} if t5 is None else {"max_sequence_length": t5.model_max_length}),
    ).images


def grid(rows: dict[str, list[Image.Image]], zoom: int = 2, label_width: int = 330) -> Image.Image:
    """One row of pictures for each prompt, with the prompt before it."""
    from PIL import Image, ImageDraw

    cell = shapes.SIDE * zoom
    most = max(len(pictures) for pictures in rows.values())
    sheet = Image.new("RGB", (label_width + cell * most, cell * len(rows)), (255, 255, 255))
    pen = ImageDraw.Draw(sheet)
    for row, (prompt, pictures) in enumerate(rows.items()):
        pen.text((6, row * cell + cell // 2 - 6), prompt, fill=(0, 0, 0))
        for column, picture in enumerate(pictures):
            sheet.paste(picture.resize((cell, cell)), (label_width + column * cell, row * cell))
    return sheet


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=[name for name in TOY_MODELS if name != "toy-clip"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=12, help="how many of the held-out prompts")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--eta", type=float, default=1.0)
    parser.add_argument("--guidance", type=float, default=5.0)
    options = parser.parse_args(arguments)
    pipeline, prompts = load(options.name), shapes.heldout_prompts()[: options.prompts]
    columns = [
        draw(pipeline, prompts, seed, options.steps, options.eta, options.guidance) for seed in range(options.seeds)
    ]
    rows = {prompt: [column[index] for column in columns] for index, prompt in enumerate(prompts)}
    grid(rows).save(options.out)


if __name__ == "__main__":
    main()
