"""Rethinking DPO (arXiv 2505.18736) on Stable Diffusion XL:
a moving, gated reference and early timesteps, on a preference set.

  python jobs/rethinking_dpo_sdxl.py --model toy-sdxl     # here, in minutes, on a CPU
  python jobs/rethinking_dpo_sdxl.py --pairs.path pickapic/ --placement.train.gpus 1
  ray job submit --working-dir . -- python jobs/rethinking_dpo_sdxl.py --pairs.path /shared/pairs --output /shared/runs
"""

from rayalign.cli import main

DEFAULTS = {
    "name": "rethinking-dpo-sdxl",
    "model": {"path": "stabilityai/stable-diffusion-xl-base-1.0", "tuning": {"kind": "full"}},
    "prompts": {"source": "animals"},
    "rewards": [{"scorer": "clip", "options": {"model": "ViT-H-14", "pretrained": "laion2b_s32b_b79k"}}],
    "sampler": {"guidance_scale": 1.0},  # as in pre-training: one prompt in five is empty instead
    "pairs": {"kind": "dataset", "path": "", "empty_prompt_share": 0.2},
    "objective": {"kind": "dpo", "beta": 5000.0},
    "reference": {"kind": "copied", "every": 32, "max_divergence": 0.002, "on_exceed": "freeze"},
    "timesteps": {"kind": "early", "gamma": 0.9, "bins": 50},
    "reward_scale": "snr",
    # 32 tickets of 8 pairs a step: 256 pairs. The papers' 2048 take eight times the tickets.
    "iterations": 250,
    "rollout": {"samples_per_ticket": 8, "tickets_per_iteration": 256},
    "train": {"lr": 1e-5, "optimizer_steps": 8, "micro_batch": 8},
}

if __name__ == "__main__":
    main(__doc__, DEFAULTS)
