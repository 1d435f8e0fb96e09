"""What a run on a toy model sets differently, so that `--model toy-sdxl` alone gives a good run in minutes."""

from __future__ import annotations

from typing import Any

TOY: dict[str, Any] = {
    "iterations": 20,
    "prompts": {"source": "shapes", "heldout": "shapes-heldout"},
    "rewards": [{"scorer": "jpeg"}],  # what needs no weights
    # A toy under guidance draws nearly one picture a prompt, whatever the noise: candidates then hardly differ. And of
    # two candidates the winner of a noisiest step leads to no better picture (measured correlation below 0.1).
    "sampler": {"guidance_scale": 1.0},
    "rollout": {"samples_per_ticket": 8, "tickets_per_iteration": 8},
    # Of a gradient from few hundred pairs, the large entries are signal and the many small ones noise. Adam makes
    # them equal (half its signs are wrong, measured); an epsilon above the gradient keeps the large ones large.
    "train": {"lr": 3e-2, "adam_eps": 1e-4, "optimizer_steps": 2, "micro_batch": 40},
    "placement": {"rollout": {"min": 2, "max": 2, "cpus": 1}, "scorer": {"cpus": 0.5, "max": 2}},
    "evaluation": {"num_prompts": 64, "seeds_per_prompt": 2, "batch": 16},
}


# Settings that belong to a choice: (group, kind) -> a tree.
BY_CHOICE: dict[tuple[str, str], dict[str, Any]] = {
    ("pairs", "stepwise"): {
        "pairs": {"tuned_steps": [14, 12, 10, 8, 6]},
        "objective": {"ratio_clip": 0.3},
    },
    # Two trajectories a sample, every step of them a pair: half the samples are as many pictures.
    ("pairs", "trajectory"): {"rollout": {"samples_per_ticket": 4}},
    ("pairs", "final"): {"train": {"lr": 3e-3, "adam_eps": 1e-8}, "objective": {"beta": 500.0}},
    # The papers' beta of 5000 belongs to latents of 16,384 numbers; a toy's 256 move further in as many steps, and
    # with it the pictures went flat before the held-out scores said so (measured).
    ("pairs", "dataset"): {
        "pairs": {"path": "toy-preferences"},
        "train": {"lr": 3e-3, "adam_eps": 1e-8},
        "objective": {"beta": 500.0},
    },
    ("objective", "rpo"): {"objective": {"embedder": "toy-clip"}},
    # Of a mean over groups, as large as a pair's; DDPO's own clip of 1e-4 would stop most of it at once.
    ("objective", "ddpo"): {"objective": {"ratio_clip": 0.1}},
    ("objective", "sft"): {"train": {"lr": 1e-3, "adam_eps": 1e-8}},
    # Adafactor saves memory that a toy does not need, and learns less there: ten iterations of Diffusion-DPO change
    # jpeg on toy-sd15 by +0.03 [-0.04, 0.10], with AdamW by +0.11 [0.04, 0.17]; on toy-sdxl by +0.16 and +0.23.
    ("tuning", "full"): {"train": {"optimizer": "adamw", "lr": 1e-4, "adam_eps": 1e-8}},
    ("reference", "copied"): {"reference": {"every": 8}},  # of the 40 optimiser steps that a toy run has
}
# The one scorer with a gradient. The paper's eta of 0.1 to 0.2 raises every step-wise score and moves no picture: final
# score 0.8004, 0.8003 without guidance. Ten times as much: 0.849 (64 samples).
GUIDED: dict[str, Any] = {
    "rewards": [{"scorer": "toy-clip"}],
    "pairs": {"guidance": {"eta_noisy": 1.0, "eta_clean": 2.0}},
}
USUAL = {"pairs": "stepwise", "objective": "dpo", "reference": "fixed"}  # kinds unless named
# Step-wise pairs by the toy CLIP score. A pair says little of it: the best of eight candidates against the worst is
# 2.8 deviations apart where one of two is 1.1, and beta 100 takes the loss out of its flat middle. Attention alone, of
# a high rank, keeps the pictures' looks.
BY_CLIP: dict[str, Any] = {
    "iterations": 30,
    "model": {"tuning": {"rank": 64, "targets": ["to_q", "to_k", "to_v", "to_out.0"]}},
    "pairs": {"num_candidates": 8, "tuned_steps": [20, 18, 16, 14, 12, 10, 8, 6]},
    "objective": {"beta": 100.0},
    "rollout": {"samples_per_ticket": 16, "tickets_per_iteration": 4},
    "train": {"lr": 4e-4, "adam_eps": 1e-8, "weight_decay": 0.0},
    "evaluation": {"num_prompts": 100, "seeds_per_prompt": 4},
}
# A toy's attention alone is small: its convolutions draw.
UNET_TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"]


def toy_settings(chosen: dict[str, Any], asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Layers of settings for a run on a toy model, none for any other.

    `chosen`: what the job and its user have set together; `asked`: the user alone.
    """
    model = chosen.get("model", {})
    path = str(model.get("path", "")) if isinstance(model, dict) else ""
    if not path.startswith("toy-"):
        return []
    kinds = {group: _kind(chosen.get(group), usual) for group, usual in USUAL.items()}
    kinds["tuning"] = _kind(model.get("tuning"), "lora")
    layers = [TOY]
    for (group, kind), tree in BY_CHOICE.items():
        if kinds[group] == kind:
            layers.append({name: values for name, values in tree.items() if _fits(name, tree, kinds["objective"])})
    if kinds["tuning"] == "lora" and path != "toy-sd3":
        layers.append({"model": {"tuning": {"targets": UNET_TARGETS}}})
    if _is_guided(chosen):
        layers.append(GUIDED)
    if _scorers(asked, layers) == ["toy-clip"] and kinds == USUAL | {"tuning": "lora"}:
        layers.append(BY_CLIP)
    return [_with_kinds(layer, kinds) for layer in layers]


def _with_kinds(layer: dict[str, Any], kinds: dict[str, str]) -> dict[str, Any]:
    """The layer with the kind of each group written out, or a user's naming it would look like another choice."""
    written = {group: {"kind": kinds[group], **layer[group]} for group in USUAL if group in layer}
    if "tuning" in layer.get("model", {}):
        written["model"] = layer["model"] | {"tuning": {"kind": kinds["tuning"], **layer["model"]["tuning"]}}
    return layer | written


def _is_guided(chosen: dict[str, Any]) -> bool:
    pairs = chosen.get("pairs")
    guidance = pairs.get("guidance") if isinstance(pairs, dict) else None
    return bool(isinstance(guidance, dict) and guidance.get("enabled"))


def _scorers(asked: dict[str, Any], layers: list[dict[str, Any]]) -> list[str]:
    """Names of the guiding scorers: the user's, or those of the last layer that has any."""
    rewards = [layer["rewards"] for layer in (*layers, asked) if "rewards" in layer][-1]
    return [str(reward.get("scorer")) for reward in rewards if isinstance(reward, dict)]


def _fits(name: str, tree: dict[str, Any], objective: str) -> bool:
    """Whether the objective that was chosen has the settings that a pair source would give it."""
    having = {"beta": ("dpo", "rpo"), "ratio_clip": ("dpo", "ddpo"), "embedder": ("rpo",)}
    return name != "objective" or all(objective in having[setting] for setting in tree["objective"])


def _kind(group: Any, usual: str) -> str:
    return str(group.get("kind", usual)) if isinstance(group, dict) else usual
