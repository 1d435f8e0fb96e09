"""The report's curves over iterations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from rayalign.evaluation.charts import Curve, line_chart
from rayalign.evaluation.report_timesteps import BY_TENTH
from rayalign.records import KEPT, STATUSES, IterationRecord

History = list[IterationRecord]

# metric -> title and what it says; drawn in this order, unknown metrics after them under their own name
CURVES = {
    "loss": ("Loss", "mean over pairs"),
    "accuracy": ("Accuracy", "share of pairs ranked as rewarded"),
    "implicit_reward": ("Implicit reward margin", "winner less loser"),
    "grad_norm": ("Gradient norm", "before clipping"),
    "guard/grad_norm": ("Gradient norm, largest", "of the iteration's steps, before clipping"),
    "guard/log_ratio": ("Log-ratio", "mean |log policy/reference| a latent element"),
    "guard/divergence": ("Divergence", "mean square of policy from initial predictions"),
}
# Of the probe that goes on while training: a section of its own, rewards first.
PROBE = {"heldout": "reward on held-out prompts", "image": "pictures of held-out prompts"}
GROUPS = {"reward": "reward"}
_ROWS = frozenset(f"pairs_{status}" for status in STATUSES)  # other counts of pairs are not of what became of them
WIDE, NARROW = 1040, 360  # px: two drawings of the same curve, so that labels stay readable on a phone


def reward_charts(history: History) -> list[Markup]:
    """Training reward per iteration with its 95% band: once for wide screens, once for narrow ones."""
    curve = curve_of(history, "reward", "reward_low", "reward_high")
    if curve is None:
        return []
    return [line_chart(curve, "Training reward per iteration", width, 240) for width in (WIDE, NARROW)]


def curves(history: History) -> list[dict[str, Any]]:
    """The smaller curves: known metrics first, then the rest, then drops, skipped steps and the lag."""
    names = dict.fromkeys(name for record in history for name in record.metrics)
    elsewhere = {"reward", "reward_low", "reward_high"}
    elsewhere |= {name for name in names if name.partition("/")[0] in (*PROBE, *BY_TENTH)}
    per_scorer = [name for name in names if name.startswith("reward/")]
    if len(per_scorer) < 2 and not any(name.startswith("score_mean/") for name in names):
        elsewhere |= set(per_scorer)  # one raw scorer's curve is the reward's, up to the weight
    order = [*(name for name in CURVES if name in names), *(name for name in names if name not in CURVES)]
    charts = [_chart(history, name, *(CURVES.get(name) or _title(name))) for name in order if name not in elsewhere]
    charts += [
        _counted(history, _drops, "Pairs dropped", "share of those drawn: ties and lost scores"),
        _counted(history, lambda record: record.counts.get("skipped_steps", 0), "Steps skipped", "of the optimiser"),
    ]
    if history:
        lag = Curve([record.number for record in history], [float(record.lag_max) for record in history])
        svg = line_chart(lag, "Largest lag per iteration")
        charts.append({"title": "Lag", "note": "policy versions, largest in the iteration", "svg": svg})
    return [chart for chart in charts if chart is not None]


def probe_curves(history: History) -> list[dict[str, Any]]:
    """What the same few held-out prompts and seeds gave while training: rewards, then image statistics."""
    names = dict.fromkeys(name for record in history for name in record.metrics)
    total = curve_of(history, "heldout/reward")
    scorers = [curve_of(history, name) for name in names if name.startswith("heldout/") and name != "heldout/reward"]
    if total in scorers:
        names.pop("heldout/reward")  # of one raw scorer: the same curve twice
    charts = [
        _chart(history, name, name.partition("/")[2].replace("_", " "), note)
        for group, note in PROBE.items()
        for name in names
        if name.startswith(f"{group}/")
    ]
    return [chart for chart in charts if chart is not None]


def _chart(history: History, metric: str, title: str, note: str) -> dict[str, Any] | None:
    curve = curve_of(history, metric)
    return None if curve is None else {"title": title, "note": note, "svg": line_chart(curve, title)}


def _counted(
    history: History, count: Callable[[IterationRecord], float], title: str, note: str
) -> dict[str, Any] | None:
    """A curve of something that is best never there; None where it never was."""
    values = [float(count(record)) for record in history]
    if not any(values):
        return None
    curve = Curve([record.number for record in history], values)
    return {"title": title, "note": note, "svg": line_chart(curve, title)}


def _drops(record: IterationRecord) -> float:
    pairs = {name: n for name, n in record.counts.items() if name in _ROWS}
    return 1 - pairs.get(f"pairs_{KEPT}", 0) / sum(pairs.values()) if any(pairs.values()) else 0.0


def _title(metric: str) -> tuple[str, str]:
    """Of a metric that `CURVES` does not know: its own name, its group beside it."""
    group, _, name = metric.partition("/")
    return (name, GROUPS[group]) if group in GROUPS else (metric, "")


def curve_of(history: History, name: str, low: str | None = None, high: str | None = None) -> Curve | None:
    """A metric over the iterations that have it (held-out ones are measured now and then); None where none does."""
    having = [record for record in history if name in record.metrics]

    def values(key: str) -> list[float]:
        return [float(record.metrics.get(key, math.nan)) for record in having]

    curve = Curve([record.number for record in having], values(name))
    if low and high and any(low in record.metrics for record in having):
        curve = replace(curve, low=values(low), high=values(high))
    return curve if curve.drawable else None
