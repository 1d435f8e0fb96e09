"""What the run cost and how to repeat it: time, denoiser calls, dropped pairs, versions, loading its LoRA."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from markupsafe import Markup

from rayalign.evaluation.bar_charts import stacked_bars
from rayalign.evaluation.formatting import duration, number
from rayalign.evaluation.history import wall_seconds
from rayalign.records import KEPT, LATENT_FAILED, SCORE_FAILED, TIE, IterationRecord
from rayalign.toy.tokenizer import SHORT

Dict = dict[str, Any]
History = list[IterationRecord]

STAGES = ("rollout", "scoring", "queued", "training", "waiting", "sync")
DROPS = {
    KEPT: "trained on",
    TIE: "dropped: equal rewards",
    SCORE_FAILED: "dropped: a score failed",
    "score_timeout": "dropped: a scorer did not answer in time",
    "score_raised": "dropped: a scorer raised an error",
    "score_not_finite": "dropped: a score was NaN or infinite",
    "score_wrong_length": "dropped: a scorer gave the wrong number of scores",
    "score_replica_died": "dropped: a scorer's replica died",
    "score_unserved": "dropped: the scoring service failed",
    LATENT_FAILED: "dropped: a latent was NaN or infinite",
}
# setting of rayalign.config.SamplerConfig -> argument of a diffusers pipeline
SAMPLER_ARGUMENTS = {"num_steps": "num_inference_steps", "guidance_scale": "guidance_scale", "eta": "eta"}


def time_shares(summary: Dict, history: History) -> Dict:
    """{"wall", "parts": [{"stage", "share", "time"}]}: shares of the stages' sum, which may exceed `wall`."""
    seconds = summary.get("seconds") or _summed(record.seconds for record in history)
    spent = _spent(seconds)
    total = sum(spent.values())
    parts = [
        {"stage": name, "share": value / total, "time": duration(value)} for name, value in spent.items()
    ]
    wall = wall_seconds(summary, history)
    return {"wall": duration(wall) if wall else "", "parts": parts}


def timeline(summary: Dict, history: History) -> Markup | None:
    """Seconds of each stage by iteration, in the order (and so the colours) of `time_shares`."""
    stages = list(_spent(summary.get("seconds") or _summed(record.seconds for record in history)))
    if not stages or not history:
        return None
    parts = {name: [_finite(record.seconds.get(name)) for record in history] for name in stages}
    iterations = [record.number for record in history]
    return stacked_bars(iterations, parts, "Seconds of each stage by iteration")


def denoiser_calls(summary: Dict) -> list[tuple[str, str]]:
    """Calls per trajectory and, in training, per pair: what sharing calls saves."""
    found = []
    if summary.get("denoiser_calls_per_trajectory") is not None:
        found.append(("per trajectory drawn", number(summary["denoiser_calls_per_trajectory"])))
    for name, calls in (summary.get("denoiser_calls_per_pair_trained") or {}).items():
        found.append((f"per pair trained, {name}", number(calls)))
    return found


def drops(summary: Dict, history: History) -> list[Dict]:
    """What became of the pairs drawn: count and share, by reason, of reasons that there were."""
    pairs = pair_counts(summary, history)
    total = sum(pairs.values())
    return [
        {"reason": DROPS.get(name, name.replace("_", " ")), "count": f"{count:,}", "share": count / total}
        for name, count in pairs.items()
        if total and (count or name in (KEPT, TIE))
    ]


def versions(summary: Dict) -> list[tuple[str, str]]:
    """Everything a repetition needs to know about software, and the hash of the settings."""
    ray = summary.get("ray") or {}
    found = dict(summary.get("versions") or {})
    if ray.get("version"):
        found.setdefault("ray", ray["version"])
    if summary.get("config_hash"):
        found["settings (hash)"] = summary["config_hash"]
    return [(name, str(version)) for name, version in found.items()]


def load_snippet(config: Dict, summary: Dict) -> str:
    """Python that loads what was tuned in plain diffusers, with the sampler the pictures were drawn with."""
    model = summary.get("model") or config.get("model", {}).get("path")
    if not model or model.split(":")[0] == "stub":
        return ""  # a stub has no diffusers pipeline
    toy = model.startswith("toy-")
    # A rectified flow's pictures are drawn by its pipeline's own scheduler.
    ddim, full = summary.get("process", "ddim") == "ddim", _tuned_whole(config)
    arguments = {name: argument for name, argument in SAMPLER_ARGUMENTS.items() if ddim or argument != "eta"}
    sampler = config.get("sampler") or {}
    settings = "".join(f", {argument}={sampler[name]}" for name, argument in arguments.items() if name in sampler)
    if toy and not ddim:
        settings += f", max_sequence_length={SHORT}"  # what T5's prompt is padded to changes the picture
    run = [str(config[name]) for name in ("output", "name") if config.get(name)]
    tuned = "/".join([*run, "model" if full else "lora"])
    source = repr(tuned) if full else f"toy_path({model!r})" if toy else repr(model)
    lines = [
        f"from diffusers import {'DDIMScheduler, ' if ddim else ''}DiffusionPipeline",
        *(["from rayalign.toy import toy_path"] if toy and not full else []),
        "",
        f"pipe = DiffusionPipeline.from_pretrained({source})",
        *(["pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)"] if ddim else []),
        *([] if full else [f"pipe.load_lora_weights({tuned!r})"]),
        f"image = pipe('a cat'{settings}).images[0]",
    ]
    return "\n".join(lines)


def _spent(seconds: Mapping[str, float]) -> dict[str, float]:
    """Stages that took time, known ones first."""
    stages = [*STAGES, *(name for name in seconds if name not in (*STAGES, "wall"))]
    return {name: seconds[name] for name in stages if (seconds.get(name) or 0) > 0}


def _finite(seconds: float | None) -> float:
    return seconds if seconds is not None and math.isfinite(seconds) else 0.0


def _tuned_whole(config: Dict) -> bool:
    return (config.get("model", {}).get("tuning") or {}).get("kind") == "full"


def pair_counts(summary: Dict, history: History) -> dict[str, int]:
    """Pairs by what became of them, `kept` first."""
    counted = summary.get("num_pairs")
    if not counted:
        counts = _summed(record.counts for record in history)
        counted = {name.removeprefix("pairs_"): n for name, n in counts.items() if name.startswith("pairs_")}
    return dict(sorted(((name, int(n)) for name, n in counted.items()), key=lambda item: item[0] != KEPT))


def _summed(groups: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: dict[str, float] = {}
    for group in groups:
        for name, value in group.items():
            total[name] = total.get(name, 0) + value
    return total
