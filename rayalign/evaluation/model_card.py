"""A model card out of a run's folder: what was tuned, by what, on what, with which scores and pictures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from rayalign.evaluation.comparison import overoptimised
from rayalign.evaluation.formatting import interval, percent
from rayalign.evaluation.report_run import load_snippet

Dict = dict[str, Any]
PICTURE = "before_after.png"
FORMS = {
    "diffusers": "A LoRA for diffusers.",
    "kohya": "A LoRA under kohya's key names, for ComfyUI and Stable Diffusion WebUI.",
    "fused": "A whole diffusers pipeline, the LoRA fused into its weights.",
    "model": "A whole diffusers pipeline, tuned in all weights of its denoiser.",
}


def write_model_card(run: Path, folder: Path, form: str) -> Path:
    """Writes README.md, and the before/after picture where the run has one, into `folder`; returns the card's file.

    Args:
        run: a run's folder. A run that has not ended has no scores yet, and the card says so.
        form: what lies in `folder`, one of `FORMS`.
    """
    config, summary = _read(run / "config.yaml"), _read(run / "summary.json")
    picture = run / "images" / PICTURE
    if picture.exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, folder / PICTURE)
    front, body = _front_matter(config, summary, form), _body(config, summary, form, picture.exists())
    ModelCard(f"---\n{front.to_yaml()}\n---\n\n{body}").save(folder / "README.md")
    return folder / "README.md"


def _front_matter(config: Dict, summary: Dict, form: str) -> ModelCardData:
    base, name = _base(config), str(config.get("name", "policy"))
    on_hub = base.count("/") == 1 and not base.startswith((".", "/", "~"))
    results = [
        EvalResult(
            task_type="text-to-image",
            dataset_type="prompts",
            dataset_name=f"{entry['num_prompts']} held-out prompts",
            metric_type=scorer,
            metric_name=f"{scorer} ({'guiding' if entry['guiding'] else 'held out'})",
            metric_value=round(entry["after"]["mean"], 6),
        )
        for scorer, entry in (summary.get("reward") or {}).items()
        if entry["after"]["mean"] is not None
    ]
    return ModelCardData(
        base_model=base if on_hub else None,
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=["text-to-image", "diffusers", "rayalign", *(["lora"] if form in ("diffusers", "kohya") else [])],
        model_name=name,
        eval_results=results or None,
    )


def _body(config: Dict, summary: Dict, form: str, has_picture: bool) -> str:
    method = summary.get("method") or {}
    rewards = [f"{reward['scorer']} x {reward['weight']:g}" for reward in config.get("rewards", [])]
    parts = [
        f"# {config.get('name', 'policy')}",
        f"{FORMS[form]} Tuned from `{_base(config)}` by rayalign on {', '.join(rewards)}.",
        f"![Same prompts and seeds, before and after]({PICTURE})" if has_picture else "",
        "## Scores",
        _scores(summary.get("reward") or {}),
        "## How it was made",
        _facts(config, summary, method),
        *(["## Load", f"```python\n{load_snippet(config, summary)}\n```"] if form == "diffusers" else []),
        "## Settings",
        f"```yaml\n{yaml.safe_dump(config, sort_keys=False, allow_unicode=True).strip()}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _scores(reward: Mapping[str, Dict]) -> str:
    if not reward:
        return "The run had not ended when this was written: no scores yet."
    lines = ["| scorer | role | before | after | change | win rate | unit |", "|---|---|---|---|---|---|---|"]
    for scorer, entry in reward.items():
        means = [" ".join(interval(entry[key])).strip() for key in ("before", "after")]
        change, wins = " ".join(interval(entry["change"], sign=True)), " ".join(percent(entry["win_rate"]))
        role = "guiding" if entry["guiding"] else "held out"
        lines.append(f"| {scorer} | {role} | {means[0]} | {means[1]} | {change} | {wins} | {entry.get('unit', '')} |")
    prompts = max(entry.get("num_prompts", 0) for entry in reward.values())
    lines.append(
        f"\nSame held-out prompts ({prompts}) and seeds before and after; 95% intervals by bootstrap over prompts."
    )
    lines += [
        f"\n**{name} fell while the guiding reward rose**: over-optimised." for name in overoptimised(dict(reward))
    ]
    return "\n".join(lines)


def _facts(config: Dict, summary: Dict, method: Dict) -> str:
    pairs = summary.get("num_pairs") or {}
    facts = {
        "method": ", ".join(f"{name} {value}" for name, value in method.items()),
        "prompts": (config.get("prompts") or {}).get("source"),
        "pairs": ", ".join(f"{count:,} {status}" for status, count in pairs.items() if count),
        "iterations": summary.get("num_iterations"),
        "seed": config.get("seed"),
        "command": f"`{summary['command']}`" if summary.get("command") else None,
        "versions": ", ".join(f"{name} {value}" for name, value in (summary.get("versions") or {}).items()),
    }
    return "\n".join(f"* {name}: {value}" for name, value in facts.items() if value not in (None, ""))


def _base(config: Dict) -> str:
    return str((config.get("model") or {}).get("path", ""))


def _read(file: Path) -> Dict:
    if not file.exists():
        return {}
    text = file.read_text(encoding="utf-8")
    return yaml.safe_load(text) if file.suffix == ".yaml" else json.loads(text)
