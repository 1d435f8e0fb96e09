"""D3PO on Stable Diffusion 1.5 (arXiv 2311.13231): whole trajectories, ranked by their finished images.

  python jobs/d3po_sd15.py --model toy-sd15 --reward jpeg  # here, in minutes, on a CPU
  python jobs/d3po_sd15.py --reward clip --placement.rollout.gpus 1 --placement.train.gpus 1
  ray job submit --working-dir . -- python jobs/d3po_sd15.py --output /shared/runs --name first
"""

from rayalign.cli import main

DEFAULTS = {
    "name": "d3po-sd15",
    "model": {"path": "stable-diffusion-v1-5/stable-diffusion-v1-5"},
    "prompts": {"source": "animals"},
    "rewards": [{"scorer": "clip", "options": {"model": "ViT-H-14", "pretrained": "laion2b_s32b_b79k"}}],
    "sampler": {"num_steps": 20, "eta": 1.0, "guidance_scale": 5.0},
    "pairs": {"kind": "trajectory", "num_candidates": 2},
    "objective": {"kind": "dpo", "beta": 0.1, "ratio_clip": 0.1},
    # 32 tickets of 4 pairs of trajectories are 256 pictures an iteration; 40 iterations draw the paper's 10,000.
    "iterations": 40,
    "rollout": {"samples_per_ticket": 4, "tickets_per_iteration": 32},
    "train": {"lr": 3e-5, "optimizer_steps": 4, "micro_batch": 8},
}

if __name__ == "__main__":
    main(__doc__, DEFAULTS)
