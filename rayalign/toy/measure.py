"""Measure a toy pipeline: what it draws right, its JPEG sizes, its toy-clip scores.

`python -m rayalign.toy.measure toy-sd15` draws with DDIM, 20 steps, eta 1 and guidance 5; toy-sd3 with its flow,
without noise, in as many steps.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rayalign.toy import TOY_MODELS, preview, shapes, toy_path
from rayalign.toy.judge import judge

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


def jpeg_kilobytes(picture: Image.Image, quality: int = 95) -> float:
    """Size of `picture` as a JPEG file, in kB of 1000 bytes."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return file.tell() / 1000


def clip_scores(pictures: list[Image.Image], prompts: list[str]) -> np.ndarray:
    """Cosine of each picture with its prompt by toy-clip: (N,)."""
    import open_clip
    import torch

    source = f"local-dir:{toy_path('toy-clip')}"
    model, _, preprocess = open_clip.create_model_and_transforms(source)
    tokens = open_clip.get_tokenizer(source)(prompts)
    model.eval()
    with torch.no_grad():
        seen = model.encode_image(torch.stack([preprocess(picture) for picture in pictures]), normalize=True)
        return (seen * model.encode_text(tokens, normalize=True)).sum(-1).numpy()


def said(prompt: str) -> tuple[str, str, str]:
    """Shape, colour and ground named in a prompt of one shape."""
    words = prompt.split()
    ground = words[words.index("ground") - 1]
    colour = next(word for word in words if word in shapes.COLOURS)
    return next(word for word in words if word in shapes.SHAPES), colour, ground


def measure(name: str, count: int, seeds: int, guidance: float = 5.0) -> dict[str, float]:
    """Numbers over the first `count` held-out prompts, `seeds` pictures of each."""
    import numpy as np

    pipeline, prompts = preview.load(name), shapes.heldout_prompts()[:count]
    by_seed = [preview.draw(pipeline, prompts, seed, guidance=guidance) for seed in range(seeds)]
    # Both are (seeds, prompts).
    sizes = np.array([[jpeg_kilobytes(picture) for picture in pictures] for pictures in by_seed])
    scores = np.array([clip_scores(pictures, prompts) for pictures in by_seed])
    hits = []
    for pictures in by_seed:
        for picture, prompt in zip(pictures, prompts, strict=True):
            if " and " not in prompt:
                seen = judge(picture)
                found = (seen.shape, seen.colour, seen.ground)
                hits.append([a == b for a, b in zip(found, said(prompt), strict=True)])
    shape, colour, ground = np.mean(hits, axis=0)
    return {
        "pictures of one shape": len(hits),
        "shape right": shape,
        "colour right": colour,
        "ground right": ground,
        "all right": np.all(hits, axis=1).mean(),
        "jpeg kB mean": sizes.mean(),
        "jpeg kB std": sizes.std(),
        "jpeg kB std within a prompt": sizes.std(axis=0).mean(),
        "clip score mean": scores.mean(),
        "clip score std": scores.std(),
        "clip score std within a prompt": scores.std(axis=0).mean(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point: prints the numbers as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=[name for name in TOY_MODELS if name != "toy-clip"])
    parser.add_argument("--prompts", type=int, default=50)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--guidance", type=float, default=5.0, help="toy-sd3 draws best with 3")
    options = parser.parse_args(arguments)
    numbers = measure(options.name, options.prompts, options.seeds, options.guidance)
    print(json.dumps({key: round(float(value), 4) for key, value in numbers.items()}, indent=2))


if __name__ == "__main__":
    main()
