"""TailorPO on Stable Diffusion 3: step-wise preference pairs along the rectified flow's SDE.

  python jobs/tailorpo_sd3.py --model toy-sd3 --reward jpeg  # here, in minutes, on a CPU
  python jobs/tailorpo_sd3.py --reward clip --placement.rollout.gpus 1 --placement.train.gpus 1
  ray job submit --working-dir . -- python jobs/tailorpo_sd3.py --output /shared/runs --name first
"""

from rayalign.cli import main

IMAGE_STREAM = ["to_q", "to_k", "to_v", "to_out.0"]
TEXT_STREAM = ["add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"]
# The paper (arXiv 2502.01667) tunes SD 1.5; its sampler's steps and its objective stand, on the flow's own kernel.
DEFAULTS = {
    "name": "tailorpo-sd3",
    # Both streams of joint attention: the image's and the text's.
    "model": {
        "path": "stabilityai/stable-diffusion-3-medium-diffusers",
        "tuning": {"targets": [*IMAGE_STREAM, *TEXT_STREAM]},
    },
    "prompts": {"source": "animals"},
    "rewards": [{"scorer": "clip", "options": {"model": "ViT-H-14", "pretrained": "laion2b_s32b_b79k"}}],
    # The SDE of Flow-GRPO (arXiv 2505.05470); its last step adds no noise, so it is not tuned.
    "sampler": {"num_steps": 20, "flow_noise": 0.7, "guidance_scale": 4.5},
    "pairs": {"kind": "stepwise", "tuned_steps": [20, 16, 12, 8, 4], "num_candidates": 2},
    "objective": {"kind": "dpo", "beta": 0.1, "ratio_clip": 0.1},
    # 64 tickets of 4 trajectories are 256 samples an iteration; 40 iterations draw the paper's 10,000.
    "iterations": 40,
    "rollout": {"samples_per_ticket": 4, "tickets_per_iteration": 64},
    "train": {"lr": 3e-5, "optimizer_steps": 4, "micro_batch": 4},
}

if __name__ == "__main__":
    main(__doc__, DEFAULTS)
