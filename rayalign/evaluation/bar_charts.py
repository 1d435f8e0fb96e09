"""Bars: what an iteration's time went into, and a rate with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from rayalign.evaluation.chart_frame import Frame
from rayalign.evaluation.charts import NUM_TONES
from rayalign.evaluation.formatting import duration

MAX_BARS = 80  # above, one bar stands for several iterations: thinner ones can't be told apart


def stacked_bars(
    iterations: Sequence[int], parts: Mapping[str, Sequence[float]], label: str, width: int = 400, height: int = 200
) -> Markup:
    """One bar an iteration (or the mean of some that follow each other), stacked from `parts`: name -> seconds, in the
    page's colours by their order. The pointer shows a bar's seconds, a line each.
    """
    size = -(-len(iterations) // MAX_BARS)
    groups = [slice(i, i + size) for i in range(0, len(iterations), size)]
    means = {name: [float(np.mean(values[group])) for group in groups] for name, values in parts.items()}
    tops = [sum(column) for column in zip(*means.values(), strict=True)]
    frame = Frame(width, height, iterations[0] - 0.5, iterations[-1] + 0.5, 0.0, max(tops) * 1.06 or 1.0)
    rectangles, points = [], []
    for i, group in enumerate(groups):
        first, last = iterations[group][0], iterations[group][-1]
        left, right = frame.at_x(first - 0.5), frame.at_x(last + 0.5)
        gap = min(2.0, 0.15 * (right - left))
        below = 0.0
        for tone, column in enumerate(means.values()):
            y, bottom = frame.at_y(below + column[i]), frame.at_y(below)
            below += column[i]
            rectangles.append(
                f'<rect class="fill{tone % NUM_TONES}" x="{left + gap / 2:.1f}" y="{y:.1f}" '
                f'width="{right - left - gap:.1f}" height="{bottom - y:.1f}"/>'
            )
        name = f"iteration {first}" if first == last else f"iterations {first} to {last}, mean"
        lines = [name, *(f"{part} {duration(column[i])}" for part, column in means.items())]
        points.append(((left + right) / 2, frame.at_y(tops[i]), "\n".join(lines)))
    return frame.svg(label, rectangles, points)


def rate_bar(mean: float | None, low: float | None, high: float | None) -> Markup:
    """A rate in 0..1 as a bar from the left, its interval as a line over the bar's end, and a tick at one half."""
    if mean is None:
        return Markup("")
    width, height = 120, 16

    def at(share: float) -> float:
        return 1 + min(max(share, 0.0), 1.0) * (width - 2)

    tone, span = "even", ""
    if low is not None and high is not None:
        tone = "up" if low > 0.5 else "down" if high < 0.5 else "even"
        span = f'<path class="limits" d="M{at(low):.1f} 5V11M{at(low):.1f} 8H{at(high):.1f}M{at(high):.1f} 5V11"/>'
    return Markup(
        f'<svg class="whisker rate" viewBox="0 0 {width} {height}" aria-hidden="true">'
        f'<rect class="all" x="1" y="3" width="{width - 2}" height="10" rx="2"/>'
        f'<rect class="part {tone}" x="1" y="3" width="{at(mean) - 1:.1f}" height="10" rx="2"/>'
        f'<line class="zero" x1="{at(0.5):.1f}" x2="{at(0.5):.1f}" y1="1" y2="{height - 1}"/>{span}</svg>'
    )
