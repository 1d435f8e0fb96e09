"""Style alignment (arXiv 2406.06382): a model learns a style that no prompt names; SFT, DPO and RPO on the same pairs.

  python jobs/style_alignment.py --model toy-sdxl      # here, in minutes, on a CPU
  python jobs/style_alignment.py --style.kind img2img --style.suffix ", a pencil sketch" --placement.train.gpus 1
  python jobs/style_alignment.py --style.kind lora --style.path my_style.safetensors --prompts my_prompts.txt

Winners are the base model's own pictures in the style, losers the same pictures as they were.
"""

from typing import Any

from rayalign.cli import main
from rayalign.config.style import StyleConfig

DEFAULTS: dict[str, Any] = {
    "name": "style-alignment",
    "model": {"path": "stabilityai/stable-diffusion-xl-base-1.0", "tuning": {"kind": "lora", "rank": 16}},
    "prompts": {"source": "animals"},
    "rewards": [{"scorer": "clip", "options": {"model": "ViT-H-14", "pretrained": "laion2b_s32b_b79k"}}],
    "sampler": {"num_steps": 20, "guidance_scale": 5.0},
    "style": {"kind": "img2img", "suffix": ", a painting by Van Gogh", "strength": 0.6},
    "pairs": {"kind": "dataset"},
    "objective": {"kind": "rpo", "beta": 5000.0, "tau": 0.1, "distance": "joint", "placement": "outside"},
    "num_pairs": 1000,
    # 32 tickets of 8 pairs a step: 256 pairs, as in the offline jobs.
    "iterations": 25,
    "rollout": {"samples_per_ticket": 8, "tickets_per_iteration": 256},
    "train": {"lr": 1e-4, "optimizer_steps": 8, "micro_batch": 8},
}
# A style that needs no weights, and the CLIP that knows a toy's shapes. With a smaller beta or larger steps than these
# the preference losses push the losers away until the pictures are white (measured).
TOY: dict[str, Any] = {
    "model": {"tuning": {"kind": "lora", "rank": 4}},
    "rewards": [{"scorer": "toy-clip"}],
    "style": {"kind": "drawn", "name": "outlines"},
    "features": {"extractor": "toy-clip"},
    "pairs": {"path": "", "cache": None},
    "num_pairs": 192,
    "iterations": 32,
    "train": {"lr": 2e-4, "optimizer_steps": 8},
    "rates": {"sft": 1e-3},
}


def start(config: StyleConfig) -> None:
    # Now, not above: Ray and torch take seconds to import, and --help must not.
    from rayalign.pipeline.style import run_style

    run_style(config)


if __name__ == "__main__":
    main(__doc__, DEFAULTS, StyleConfig, start, TOY)
