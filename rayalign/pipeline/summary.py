"""summary.json: what a run did, summed over its whole history, resumed or not."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from rayalign import __version__
from rayalign.config import RunConfig
from rayalign.evaluation.callouts import warnings
from rayalign.evaluation.comparison import compare
from rayalign.evaluation.drift import drift
from rayalign.evaluation.history import read_history
from rayalign.evaluation.image_set import ImageSet
from rayalign.evaluation.wrong import alarms, rolled_back_to
from rayalign.models.families import find_family
from rayalign.records import SKIP_REASONS, STATUSES
from rayalign.redaction import redacted_command
from rayalign.rewards.table import scorer_facts
from rayalign.whole_files import write_whole

PACKAGES = ("ray", "torch", "diffusers", "transformers", "peft", "accelerate", "open_clip_torch", "pyarrow")


def summarise(
    config: RunConfig,
    before: ImageSet,
    after: ImageSet | None,
    wall_s: float,
    restarts: int,
    texts: dict[str, dict[str, int]],
) -> dict[str, Any]:
    """The run so far.

    `wall_s` is of all attempts. `texts` (`text_encodings`) are this attempt's alone: what an earlier one encoded ended
    with it.
    """
    history = read_history(config.folder)
    counts: Counter[str] = Counter()
    seconds: Counter[str] = Counter()
    for record in history:
        counts.update(record.counts)
        seconds.update(record.seconds)
    kept, drawn = max(counts["pairs_kept"], 1), max(counts["trajectories"], 1)
    summary: dict[str, Any] = {
        "name": config.name,
        "model": config.model.path,
        "process": find_family(config.model.path, config.model.family).process,
        "rewards": [
            {"scorer": r.scorer, "weight": r.weight, "scale": r.scale, "unit": scorer_facts(r.scorer).unit}
            for r in config.rewards
        ],
        "method": {
            "pairs": config.pairs.kind,
            "objective": config.objective.kind,
            "reference": config.reference.kind,
            "timesteps": config.timesteps.kind,
            "reward_scale": config.reward_scale,
        },
        "num_pairs": {status: counts[f"pairs_{status}"] for status in STATUSES},
        "num_pairs_guided": counts["pairs_guided"],
        "num_iterations": len(history),
        "num_trajectories": counts["trajectories"],
        "policy_version": history[-1].version if history else 0,
        "denoiser_calls_per_trajectory": counts["denoiser_calls"] / drawn,
        "denoiser_calls_per_pair_trained": {name: counts[f"{name}_calls"] / kept for name in ("policy", "reference")},
        "warnings": warnings(history, before),
        "pair_bytes": counts["pair_bytes"],
        "optimizer_steps": counts["optimizer_steps"],
        "skipped_steps": counts["skipped_steps"],
        "skipped_steps_by_reason": {reason: counts[f"skipped_steps_{reason}"] for reason in SKIP_REASONS},
        "pairs_in_skipped_steps": counts["pairs_in_skipped_steps"],
        "losses_not_finite": counts["loss_not_finite"],
        "alarms": alarms(history),
        "text_encodings": texts,
        "seconds": {**seconds, "wall": wall_s},
        "lag_max": max((record.lag_max for record in history), default=0),
        "ray": {"version": importlib.metadata.version("ray"), "restarts": {"train": restarts}},
        "versions": {"rayalign": __version__, "python": platform.python_version()}
        | {name: importlib.metadata.version(name) for name in PACKAGES},
        "command": " ".join([os.path.basename(sys.executable), *redacted_command(sys.argv)]),
        "config_hash": config.hash(),
    }
    back = rolled_back_to(history)
    if back is not None:
        summary |= {"rolled_back_to": back, "policy_version": back}
    if after is not None:
        units = {name: scorer_facts(name).unit for name in before.scores}
        summary["reward"] = compare(before, after, config.scorer_names, config.heldout_names, units)
        summary["drift"] = drift(before, after)
    return summary


def read_summary(folder: Path) -> dict[str, Any]:
    """What is on disk, {} where there is none."""
    path = folder / "summary.json"
    return json.loads(path.read_text()) if path.exists() else {}


def write_summary(folder: Path, summary: dict[str, Any]) -> None:
    write_whole(folder / "summary.json", json.dumps(summary, indent=1, default=float))
