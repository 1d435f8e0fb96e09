"""Where in the schedule the policy learns to tell winner from loser: metrics by tenth, early in the run and late."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from rayalign.evaluation.charts import Curve, overlay_chart
from rayalign.records import IterationRecord

TENTHS = 10
# group of metrics -> title
BY_TENTH = {
    "implicit_reward_by_tenth": "Implicit reward by timestep",
    "accuracy_by_tenth": "Accuracy by timestep",
}
NOTE = "x: tenth of the schedule, 0 the cleanest"


def timestep_charts(history: list[IterationRecord]) -> list[dict[str, Any]]:
    """A chart for each of `BY_TENTH` that the run has: means over its first and its last quarter of iterations."""
    charts = []
    for group, title in BY_TENTH.items():
        quarter = max(1, len(history) // 4)
        parts = {"last": history[-quarter:]}
        if len(history) > quarter:
            parts["first"] = history[:quarter]
        curves = {_name(side, part): _by_tenth(part, group) for side, part in parts.items() if part}
        if any(curve.drawable for curve in curves.values()):
            svg = overlay_chart(curves, title)
            charts.append({"title": title, "note": NOTE, "svg": svg, "legend": list(enumerate(curves))})
    return charts


def _by_tenth(records: list[IterationRecord], group: str) -> Curve:
    """Of the tenths that were trained on; the others are skipped, not gaps: few methods train on all."""
    found = {}
    for tenth in range(TENTHS):
        values = [record.metrics.get(f"{group}/{tenth}", math.nan) for record in records]
        finite = [value for value in values if math.isfinite(value)]
        if finite:
            found[tenth] = float(np.mean(finite))
    return Curve(list(found), list(found.values()))


def _name(side: str, records: list[IterationRecord]) -> str:
    first, last = records[0].number, records[-1].number
    return f"iteration {first}" if first == last else f"{side} {len(records)} iterations"
