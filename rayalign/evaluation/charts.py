"""Small SVG drawings for the report: curves with a band, several curves in one, and a mean with its interval.

Colours come from the page (CSS classes and variables), so that one drawing serves light, dark and paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rayalign.evaluation.chart_frame import Frame, value_range
from rayalign.evaluation.formatting import number

MAX_DOTS = 30  # above, points hide the line they sit on
NUM_TONES = 6  # colours of series in the style sheet; a seventh takes the first's, dashed


@dataclass(frozen=True)
class Curve:
    """One value per iteration; `low` and `high` bound a band where known. NaN leaves a gap."""

    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None

    @property
    def drawable(self) -> bool:
        return any(math.isfinite(value) for value in self.y)

    @property
    def values(self) -> list[float]:
        """All that is drawn."""
        return [value for line in (self.y, self.low, self.high) if line is not None for value in line]


def line_chart(curve: Curve, label: str, width: int = 360, height: int = 180) -> Markup:
    """An SVG of one curve over iterations; the pointer shows a point's value; `label` is read aloud."""
    frame = Frame(width, height, min(curve.x), max(curve.x), *value_range(curve.values))
    parts = _band(curve, frame) + _line(curve, frame)
    points = [(frame.at_x(x), frame.at_y(y), f"{int(x)}: {number(y)}") for x, y in _finite(curve)]
    return frame.svg(label, parts, points)


def overlay_chart(curves: Mapping[str, Curve], label: str, width: int = 360, height: int = 180) -> Markup:
    """Several curves in one drawing, each in a group of class `series` that a legend can hide. No bands: they
    would cover one another.
    """
    drawn = {name: curve for name, curve in curves.items() if curve.drawable}
    xs = [x for curve in drawn.values() for x in curve.x]
    values = [y for curve in drawn.values() for y in curve.y]
    frame = Frame(width, height, min(xs), max(xs), *value_range(values))
    parts, points = [], []
    for i, (name, curve) in enumerate(curves.items()):
        if name in drawn:
            parts.append(f'<g class="series {series_tone(i)}" data-series="{i}">{"".join(_line(curve, frame))}</g>')
            points += [
                (frame.at_x(x), frame.at_y(y), f"{name}, {int(x)}: {number(y)}", i) for x, y in _finite(curve)
            ]
    return frame.svg(label, parts, points)


def series_tone(i: int) -> str:
    """CSS classes of the i-th series."""
    return f"ink{i % NUM_TONES}" + (" dashed" if i // NUM_TONES % 2 else "")


def whisker(
    mean: float | None, low: float | None, high: float | None, bounds: tuple[float, float], reference: float
) -> Markup:
    """A mean as a dot, its interval as a line through it, and a tick at `reference` (no change, or 50%)."""
    if mean is None:
        return Markup("")
    width, height, left, right = 120, 16, *bounds

    def at(value: float) -> float:
        return 4 + (min(max(value, left), right) - left) / (right - left) * (width - 8)

    parts = [
        f'<line class="axis" x1="4" x2="{width - 4}" y1="8" y2="8"/>',
        f'<line class="zero" x1="{at(reference):.1f}" x2="{at(reference):.1f}" y1="1" y2="{height - 1}"/>',
    ]
    tone = "even"
    if low is not None and high is not None:
        tone = "up" if low > reference else "down" if high < reference else "even"
        parts.append(f'<line class="span {tone}" x1="{at(low):.1f}" x2="{at(high):.1f}" y1="8" y2="8"/>')
    parts.append(f'<circle class="{tone}" cx="{at(mean):.1f}" cy="8" r="3.5"/>')
    return Markup(
        f'<svg class="whisker" viewBox="0 0 {width} {height}" aria-hidden="true">{"".join(parts)}</svg>'
    )


def _finite(curve: Curve) -> list[tuple[float, float]]:
    return [(x, y) for x, y in zip(curve.x, curve.y, strict=True) if math.isfinite(y)]


def _line(curve: Curve, frame: Frame) -> list[str]:
    """A path that lifts the pen over gaps, and its points where they are few."""
    steps, down = [], False
    for x, y in zip(curve.x, curve.y, strict=True):
        if not math.isfinite(y):
            down = False
            continue
        steps.append(f"{'L' if down else 'M'}{frame.at_x(x):.1f} {frame.at_y(y):.1f}")
        down = True
    points = _finite(curve)
    dots = points if len(points) <= MAX_DOTS else []
    return [f'<path class="line" d="{"".join(steps)}"/>'] + [
        f'<circle class="dot" cx="{frame.at_x(x):.1f}" cy="{frame.at_y(y):.1f}" r="2.5"/>' for x, y in dots
    ]


def _band(curve: Curve, frame: Frame) -> list[str]:
    """The area between low and high, over the iterations where both are known."""
    if curve.low is None or curve.high is None:
        return []
    edges = [
        (frame.at_x(x), frame.at_y(low), frame.at_y(high))
        for x, low, high in zip(curve.x, curve.low, curve.high, strict=True)
        if math.isfinite(low) and math.isfinite(high)
    ]
    if len(edges) < 2:
        return [f'<line class="span" x1="{x:.1f}" x2="{x:.1f}" y1="{a:.1f}" y2="{b:.1f}"/>' for x, a, b in edges]
    there = [f"{x:.1f},{high:.1f}" for x, _, high in edges]
    back = [f"{x:.1f},{low:.1f}" for x, low, _ in reversed(edges)]
    return [f'<polygon class="band" points="{" ".join(there + back)}"/>']
