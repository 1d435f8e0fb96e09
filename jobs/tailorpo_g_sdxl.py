"""TailorPO-G on Stable Diffusion XL: the winner is also moved along the reward's gradient.

  python jobs/tailorpo_g_sdxl.py --model toy-sdxl --reward toy-clip  # here, in minutes, on a CPU
  python jobs/tailorpo_g_sdxl.py --reward clip --placement.rollout.gpus 1 --placement.train.gpus 1
  ray job submit --working-dir . -- python jobs/tailorpo_g_sdxl.py --output /shared/runs --name first
"""

from rayalign.cli import main

DEFAULTS = {
    "name": "tailorpo-g-sdxl",
    "model": {"path": "stabilityai/stable-diffusion-xl-base-1.0"},
    "prompts": {"source": "animals"},
    "rewards": [{"scorer": "clip", "options": {"model": "ViT-H-14", "pretrained": "laion2b_s32b_b79k"}}],
    "sampler": {"num_steps": 20, "eta": 1.0, "guidance_scale": 5.0},
    # The paper's delta and cosine eta; a moved winner is kept where its own step-wise reward is higher.
    "pairs": {
        "kind": "stepwise",
        "tuned_steps": [20, 16, 12, 8, 4],
        "guidance": {"enabled": True, "delta": 0.5, "eta_noisy": 0.1, "eta_clean": 0.2},
    },
    "objective": {"kind": "dpo", "beta": 0.1, "ratio_clip": 0.1},
    # 64 tickets of 4 trajectories are 256 samples an iteration; 40 iterations draw the paper's 10,000.
    "iterations": 40,
    "rollout": {"samples_per_ticket": 4, "tickets_per_iteration": 64},
    "train": {"lr": 3e-5, "optimizer_steps": 4, "micro_batch": 4},
}

if __name__ == "__main__":
    main(__doc__, DEFAULTS)
