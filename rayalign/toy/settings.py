"""What a run on a toy model sets differently, so that `--model toy-sdxl` alone gives a good run in minutes."""

from __future__ import annotations

from typing import Any

TOY: dict[str, Any] = {
    "iterations": 20,
    "model": {"lora": {"targets": ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"]}},
    "prompts": {"source": "shapes", "heldout": "shapes-heldout"},
    # A toy under guidance draws nearly one picture a prompt, whatever the noise: candidates then hardly differ. And it
    # decides late: the winner of one of the noisiest steps leads to no better picture (measured correlation below 0.1).
    "sampler": {"guidance_scale": 1.0, "tuned_steps": [14, 12, 10, 8, 6]},
    "rollout": {"samples_per_ticket": 8, "tickets_per_iteration": 8},
    # Of a gradient from few hundred pairs, the large entries are signal and the many small ones noise. Adam makes
    # them equal (half its signs are wrong, measured); an epsilon above the gradient keeps the large ones large.
    "train": {"lr": 3e-2, "adam_eps": 1e-4, "ratio_clip": 0.3, "optimizer_steps": 2, "micro_batch": 40},
    "placement": {"rollout": {"min": 2, "max": 2, "cpus": 1}, "scorer": {"cpus": 0.5, "max": 2}},
    "evaluation": {"num_prompts": 64, "seeds_per_prompt": 2, "batch": 16},
}


def toy_settings(model: str) -> dict[str, Any]:
    """Settings for a toy model, {} for any other."""
    return TOY if model.startswith("toy-") else {}
