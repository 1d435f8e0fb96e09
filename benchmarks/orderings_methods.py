"""The methods that orderings.py compares, as settings of a run: each group has its paper, and what that paper found.

Samples are equal in a group: an iteration draws 64 pictures whichever way (pairs of whole trajectories: 32 of two).
Step sizes are not: gradients of different losses differ a hundredfold. Online each method has, for each reward, the
best of four in powers of ten, found on seed 0 (the table shows each seed, so what that gained seed 0 can be seen).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rayalign.toy.settings import GUIDED
from rayalign.trees import Tree, merged

ITERATIONS = 12
STEPS = [14, 12, 10, 8, 6]
UNET = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"]

COMMON: Tree = {
    "model": {"path": "toy-sdxl", "tuning": {"kind": "lora", "targets": UNET}},
    "prompts": {"source": "shapes", "heldout": "shapes-heldout"},
    "sampler": {"guidance_scale": 1.0},
    "rollout": {"samples_per_ticket": 8, "tickets_per_iteration": 8},
    "train": {"lr": 3e-2, "adam_eps": 1e-4, "optimizer_steps": 2, "micro_batch": 40},
    "evaluation": {"num_prompts": 48, "seeds_per_prompt": 2, "batch": 16, "every": 0},
    "iterations": ITERATIONS,
}
HALF: Tree = {"rollout": {"samples_per_ticket": 4, "tickets_per_iteration": 8}}
OFFLINE: Tree = {"train": {"lr": 3e-3, "adam_eps": 1e-8}, "pairs": {"kind": "dataset", "path": "toy-preferences"}}
DPO: Tree = {"objective": {"kind": "dpo", "beta": 500.0}}
TAILORPO: Tree = {"pairs": {"tuned_steps": STEPS}, "objective": {"ratio_clip": 0.3}}
WHOLE: Tree = {"pairs": {"kind": "trajectory", "steps": STEPS}, "objective": {"kind": "dpo"}}
SPO: Tree = {
    "pairs": {"tuned_steps": STEPS, "continuation": "random", "num_candidates": 4},
    "objective": {"kind": "dpo", "beta": 10.0, "ratio_clip": None},
}
SPO_EPS = {"jpeg": 1e-3, "toy-clip": 1e-2}  # its beta is a hundred times the others', and so is its gradient
TAILORPO_EPS = {"jpeg": 1e-5, "toy-clip": 1e-4}
PAPERS_ETA: Tree = {"pairs": {"guidance": {"enabled": True}}}


@dataclass(frozen=True)
class Method:
    """A name, its settings above COMMON, and Adam's epsilon by reward: far above the gradient, it divides the step."""

    name: str
    settings: tuple[Tree, ...]
    rewards: tuple[str, ...] = ("jpeg", "toy-clip")
    adam_eps: dict[str, float] = field(default_factory=dict)


ONLINE = (
    Method(
        "DDPO",
        (
            {
                "pairs": {"kind": "sample", "group": 4, "steps": STEPS},
                "objective": {"kind": "ddpo", "ratio_clip": 0.1},
            },
        ),
        adam_eps={"jpeg": 1e-4, "toy-clip": 1e-3},
    ),
    Method("D3PO", (HALF, WHOLE, {"objective": {"ratio_clip": 0.3}}), adam_eps={"jpeg": 1e-5, "toy-clip": 1e-4}),
    Method("SPO", (SPO,), adam_eps=SPO_EPS),
    Method("SPO, 2 candidates", (SPO, {"pairs": {"num_candidates": 2}}), adam_eps=SPO_EPS),
    Method("TailorPO", (TAILORPO,), adam_eps=TAILORPO_EPS),
    Method("TailorPO-G", (TAILORPO, PAPERS_ETA), ("toy-clip",), TAILORPO_EPS),
    Method("TailorPO-G, eta x 10", (TAILORPO, PAPERS_ETA, {"pairs": GUIDED["pairs"]}), ("toy-clip",), TAILORPO_EPS),
)
COPIED: Tree = {"kind": "copied", "every": 4}
GATED: Tree = COPIED | {"max_divergence": 0.005}
EARLY: Tree = {"timesteps": {"kind": "early"}, "reward_scale": "snr"}
GENTLER: Tree = {"timesteps": {"gamma": 0.97}}
REFERENCE = (
    Method("Diffusion-DPO", (OFFLINE, DPO), ("jpeg",)),
    Method("+ copy, no gate", (OFFLINE, DPO, {"reference": COPIED | {"max_divergence": None}}), ("jpeg",)),
    Method("+ copy and gate", (OFFLINE, DPO, {"reference": GATED}), ("jpeg",)),
    Method("+ timesteps", (OFFLINE, DPO, EARLY), ("jpeg",)),
    Method("+ timesteps, gamma 0.97", (OFFLINE, DPO, EARLY, GENTLER), ("jpeg",)),
    Method("+ both", (OFFLINE, DPO, EARLY, {"reference": GATED}), ("jpeg",)),
    Method("+ both, gamma 0.97", (OFFLINE, DPO, EARLY, GENTLER, {"reference": GATED}), ("jpeg",)),
)
# The preference set of the style group is made by orderings.py: the base's own pictures, and these as outlines.
# Every pair is the same preference, which both losses have learned after few small steps; larger ones, or a smaller
# beta, push the losers away until the pictures are white (measured). SFT bears, and needs, five times the step.
STYLED: Tree = {"iterations": 32, "train": {"lr": 2e-4, "optimizer_steps": 8}}
STYLE = (
    Method("SFT", (OFFLINE, STYLED, {"objective": {"kind": "sft"}, "train": {"lr": 1e-3}}), ("toy-clip",)),
    Method("DPO", (OFFLINE, STYLED, DPO), ("toy-clip",)),
    Method(
        "RPO", (OFFLINE, STYLED, {"objective": {"kind": "rpo", "beta": 500.0, "embedder": "toy-clip"}}), ("toy-clip",)
    ),
)
GROUPS = {"online": ONLINE, "reference": REFERENCE, "style": STYLE}
# What the papers' own tables say, low to high.
PAPERS = {
    "online/jpeg": ("arXiv 2502.01667, table 1, JPEG", ("DDPO", "D3PO", "TailorPO")),
    "online/toy-clip": (
        "arXiv 2502.01667, table 1, ImageReward",
        ("D3PO", "SPO", "DDPO", "TailorPO", "TailorPO-G"),
    ),
    "reference/jpeg": (
        "arXiv 2505.18736, ablation, PickScore",
        ("+ timesteps", "Diffusion-DPO", "+ copy and gate", "+ both"),
    ),
    "style/toy-clip": ("arXiv 2406.06382, style alignment, FID", ("SFT", "DPO", "RPO")),
}


def settings(method: Method, reward: str, seed: int) -> Tree:
    """The tree of one run."""
    step: Tree = {"train": {"adam_eps": method.adam_eps[reward]}} if method.adam_eps else {}
    return merged([COMMON, *method.settings, step, {"rewards": [{"scorer": reward}], "seed": seed}])
