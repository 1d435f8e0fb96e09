"""What a run on a toy model sets differently, so that `--model toy-sdxl` alone gives a good run in minutes."""

from __future__ import annotations

from typing import Any

TOY: dict[str, Any] = {
    "iterations": 20,
    "prompts": {"source": "shapes", "heldout": "shapes-heldout"},
    "rewards": [{"scorer": "jpeg"}],  # what needs no weights
    # A toy under guidance draws nearly one picture a prompt, whatever the noise: candidates then hardly differ. And it
    # decides late: the winner of one of the noisiest steps leads to no better picture (measured correlation below 0.1).
    "sampler": {"guidance_scale": 1.0},
    "rollout": {"samples_per_ticket": 8, "tickets_per_iteration": 8},
    # Of a gradient from few hundred pairs, the large entries are signal and the many small ones noise. Adam makes
    # them equal (half its signs are wrong, measured); an epsilon above the gradient keeps the large ones large.
    "train": {"lr": 3e-2, "adam_eps": 1e-4, "optimizer_steps": 2, "micro_batch": 40},
    "placement": {"rollout": {"min": 2, "max": 2, "cpus": 1}, "scorer": {"cpus": 0.5, "max": 2}},
    "evaluation": {"num_prompts": 64, "seeds_per_prompt": 2, "batch": 16},
}


# Settings that belong to a choice: (group, its kind unless named, kind) -> a tree.
BY_CHOICE: dict[tuple[str, str, str], dict[str, Any]] = {
    ("pairs", "stepwise", "stepwise"): {
        "pairs": {"tuned_steps": [14, 12, 10, 8, 6]},
        "objective": {"ratio_clip": 0.3},
    },
    # Two trajectories a sample, every step of them a pair: half the samples are as many pictures.
    ("pairs", "stepwise", "trajectory"): {"rollout": {"samples_per_ticket": 4}},
    ("pairs", "stepwise", "final"): {"train": {"lr": 3e-3, "adam_eps": 1e-8}, "objective": {"beta": 500.0}},
    # The papers' beta of 5000 belongs to latents of 16,384 numbers; a toy's 256 move further in as many steps, and
    # with it the pictures went flat before the held-out scores said so (measured).
    ("pairs", "stepwise", "dataset"): {
        "pairs": {"path": "toy-preferences"},
        "train": {"lr": 3e-3, "adam_eps": 1e-8},
        "objective": {"beta": 500.0},
    },
    ("objective", "dpo", "rpo"): {"objective": {"embedder": "toy-clip"}},
    # Of a mean over groups, as large as a pair's; DDPO's own clip of 1e-4 would stop most of it at once.
    ("objective", "dpo", "ddpo"): {"objective": {"ratio_clip": 0.1}},
    ("objective", "dpo", "sft"): {"train": {"lr": 1e-3, "adam_eps": 1e-8}},
}
FULL = {"train": {"lr": 1e-4, "adam_eps": 1e-8}}
# A toy's attention alone is small: its convolutions draw.
UNET_TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"]


def toy_settings(chosen: dict[str, Any]) -> list[dict[str, Any]]:
    """Layers of settings for a run on a toy model, none for any other. `chosen`: what the job and its user have set."""
    model = chosen.get("model", {})
    path = str(model.get("path", "")) if isinstance(model, dict) else ""
    if not path.startswith("toy-"):
        return []
    layers = [TOY]
    for (group, usual, kind), tree in BY_CHOICE.items():
        if _kind(chosen.get(group), usual) == kind:
            layers.append({name: values for name, values in tree.items() if _fits(name, tree, chosen)})
    guidance = chosen.get("pairs", {}).get("guidance", {}) if isinstance(chosen.get("pairs"), dict) else {}
    if isinstance(guidance, dict) and guidance.get("enabled"):
        layers.append({"rewards": [{"scorer": "toy-clip"}]})  # the one that has a gradient
    if _kind(model.get("tuning"), "lora") == "full":
        layers.append(FULL)
    elif path != "toy-sd3":
        layers.append({"model": {"tuning": {"targets": UNET_TARGETS}}})
    return layers


def _fits(name: str, tree: dict[str, Any], chosen: dict[str, Any]) -> bool:
    """Whether the objective that was chosen has the settings a pair source would give it."""
    having = {"beta": ("dpo", "rpo"), "ratio_clip": ("dpo", "ddpo"), "embedder": ("rpo",)}
    kind = _kind(chosen.get("objective"), "dpo")
    return name != "objective" or all(kind in having[setting] for setting in tree["objective"])


def _kind(group: Any, usual: str) -> str:
    return str(group.get("kind", usual)) if isinstance(group, dict) else usual
