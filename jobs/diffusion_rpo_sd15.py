"""Diffusion-RPO (arXiv 2406.06382) on Stable Diffusion 1.5: every winner against every loser, by how alike they are.

  python jobs/diffusion_rpo_sd15.py --model toy-sd15      # here, in minutes, on a CPU
  python jobs/diffusion_rpo_sd15.py --pairs.path pickapic/ --placement.train.gpus 1 --placement.annotate.gpus 0.2
  ray job submit --working-dir . -- python jobs/diffusion_rpo_sd15.py --pairs.path /shared/pairs --output /shared/runs
"""

from rayalign.cli import main

DEFAULTS = {
    "name": "diffusion-rpo-sd15",
    "model": {"path": "stable-diffusion-v1-5/stable-diffusion-v1-5", "tuning": {"kind": "full"}},
    "prompts": {"source": "animals"},
    "rewards": [{"scorer": "clip", "options": {"model": "ViT-H-14", "pretrained": "laion2b_s32b_b79k"}}],
    "sampler": {"guidance_scale": 1.0},
    "pairs": {"kind": "dataset", "path": "", "empty_prompt_share": 0.2},
    "objective": {"kind": "rpo", "beta": 5000.0, "tau": 0.1, "distance": "joint", "placement": "outside"},
    # 32 tickets of 8 pairs a step: 256 pairs. The papers' 2048 take eight times the tickets.
    "iterations": 250,
    "rollout": {"samples_per_ticket": 8, "tickets_per_iteration": 256},
    "train": {"lr": 1e-5, "optimizer_steps": 8, "micro_batch": 8},
}

if __name__ == "__main__":
    main(__doc__, DEFAULTS)
