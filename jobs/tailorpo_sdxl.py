"""TailorPO on Stable Diffusion XL: step-wise preference pairs, online, to a LoRA that diffusers loads.

  python jobs/tailorpo_sdxl.py --model toy-sdxl --reward jpeg            # here, in minutes, on a CPU
  python jobs/tailorpo_sdxl.py --reward clip --placement.rollout.gpus 1 --placement.train.gpus 1
  ray job submit --working-dir . -- python jobs/tailorpo_sdxl.py --output /shared/runs --name first
"""

from rayalign.cli import main

# The paper (arXiv 2502.01667) tunes SD 1.5; for SDXL its sampler and objective stand, with bfloat16 and 1024 pixels.
DEFAULTS = {
    "name": "tailorpo-sdxl",
    "model": {"path": "stabilityai/stable-diffusion-xl-base-1.0"},
    "prompts": {"source": "animals"},
    "rewards": [{"scorer": "clip", "options": {"model": "ViT-H-14", "pretrained": "laion2b_s32b_b79k"}}],
    "iterations": 40,
    "sampler": {"num_steps": 20, "eta": 1.0, "guidance_scale": 5.0},
    "pairs": {"kind": "stepwise", "tuned_steps": [20, 16, 12, 8, 4], "num_candidates": 2},
    "objective": {"kind": "dpo", "beta": 0.1, "ratio_clip": 0.1},
    # 64 tickets of 4 trajectories are 256 samples an iteration; 40 iterations draw the paper's 10,000.
    "rollout": {"samples_per_ticket": 4, "tickets_per_iteration": 64},
    "train": {"lr": 3e-5, "optimizer_steps": 4, "micro_batch": 4},
}

if __name__ == "__main__":
    main(__doc__, DEFAULTS)
