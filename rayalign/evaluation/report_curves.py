"""The report's curves over iterations."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from rayalign.evaluation.charts import Curve, line_chart
from rayalign.records import IterationRecord

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
GROUPS = {"reward": "reward", "heldout": "on held-out prompts", "image": "pictures of held-out prompts"}
WIDE, NARROW = 1040, 360  # px: two drawings of the same curve, so that labels stay readable on a phone


def reward_charts(history: History) -> list[Markup]:
    """Training reward per iteration with its 95% band: once for wide screens, once for narrow ones."""
    curve = _curve(history, "reward", "reward_low", "reward_high")
    if curve is None:
        return []
    return [line_chart(curve, "Training reward per iteration", width, 240) for width in (WIDE, NARROW)]


def curves(history: History) -> list[dict[str, Any]]:
    """The smaller curves: known metrics first, then the rest, then the lag."""
    names = dict.fromkeys(name for record in history for name in record.metrics)
    shown_above = {"reward", "reward_low", "reward_high"}
    per_scorer = [name for name in names if name.startswith("reward/")]
    if len(per_scorer) < 2 and not any(name.startswith("score_mean/") for name in names):
        shown_above |= set(per_scorer)  # one raw scorer's curve is the reward's, up to the weight
    order = [*(name for name in CURVES if name in names), *(name for name in names if name not in CURVES)]
    charts = []
    for name in order:
        curve = None if name in shown_above else _curve(history, name)
        if curve is not None:
            title, note = CURVES.get(name) or _title(name)
            charts.append({"title": title, "note": note, "svg": line_chart(curve, title)})
    if history:
        lag = Curve([record.iteration for record in history], [float(record.lag_max) for record in history])
        svg = line_chart(lag, "Largest lag per iteration")
        charts.append({"title": "Lag", "note": "policy versions, largest in the iteration", "svg": svg})
    return charts


def _title(metric: str) -> tuple[str, str]:
    """Of a metric that `CURVES` does not know: its own name, its group beside it."""
    group, _, name = metric.partition("/")
    return (name, GROUPS[group]) if group in GROUPS else (metric, "")


def _curve(history: History, name: str, low: str | None = None, high: str | None = None) -> Curve | None:
    """A metric over the iterations that have it (held-out ones are measured now and then); None where none does."""
    having = [record for record in history if name in record.metrics]

    def values(key: str) -> list[float]:
        return [float(record.metrics.get(key, math.nan)) for record in having]

    curve = Curve([record.iteration for record in having], values(name))
    if low and high and any(low in record.metrics for record in having):
        curve = replace(curve, low=values(low), high=values(high))
    return curve if curve.drawable else None
