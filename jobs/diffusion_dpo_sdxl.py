"""Diffusion-DPO (arXiv 2311.12908) on Stable Diffusion XL, from a preference set such as Pick-a-Pic.

  python jobs/diffusion_dpo_sdxl.py --model toy-sdxl      # here, in minutes, on a CPU
  python jobs/diffusion_dpo_sdxl.py --pairs.path pickapic/ --placement.train.gpus 1
  ray job submit --working-dir . -- python jobs/diffusion_dpo_sdxl.py --pairs.path /shared/pairs --output /shared/runs
"""

from rayalign.cli import main

DEFAULTS = {
    "name": "diffusion-dpo-sdxl",
    "model": {"path": "stabilityai/stable-diffusion-xl-base-1.0", "tuning": {"kind": "full"}},
    "prompts": {"source": "animals"},
    "rewards": [{"scorer": "clip", "options": {"model": "ViT-H-14", "pretrained": "laion2b_s32b_b79k"}}],
    "sampler": {"guidance_scale": 1.0},  # as in pre-training: one prompt in five is empty instead
    "pairs": {"kind": "dataset", "path": "", "empty_prompt_share": 0.2},
    "objective": {"kind": "dpo", "beta": 5000.0},
    # 32 tickets of 8 pairs a step: 256 pairs. The papers' 2048 take eight times the tickets.
    "iterations": 250,
    "rollout": {"samples_per_ticket": 8, "tickets_per_iteration": 256},
    "train": {"optimizer": "adafactor", "lr": 1e-5, "optimizer_steps": 8, "micro_batch": 8},
}

if __name__ == "__main__":
    main(__doc__, DEFAULTS)
