"""Small SVG drawings for the report: curves with a band, and a mean with its interval.

Colours come from the page (CSS classes and variables), so that one drawing serves light, dark and paper.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from rayalign.evaluation.formatting import number

LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 24  # px around the plot: axis labels to the left and below
MAX_DOTS = 30  # above, points hide the line they sit on
Scale = Callable[[float], float]  # a value -> px
TINY = 1e-12  # a range below this is a constant: dividing by it would draw rounding noise as a curve


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


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) inside [low, high], roughly `about` of them."""
    span = high - low
    if span <= TINY:
        return [low]
    raw = span / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [k * step for k in range(first, last + 1)]


def line_chart(curve: Curve, label: str, width: int = 360, height: int = 180) -> Markup:
    """An SVG of one curve over iterations; the pointer shows a point's value; `label` is read aloud."""
    low, high = _range(curve)
    x_low, x_high = min(curve.x), max(curve.x)

    def at_x(value: float) -> float:
        share = (value - x_low) / (x_high - x_low) if x_high > x_low else 0.5
        return LEFT + share * (width - LEFT - RIGHT)

    def at_y(value: float) -> float:
        return TOP + (high - value) / (high - low) * (height - TOP - BOTTOM)

    parts = []
    y_ticks = ticks(low, high)
    places = _places(y_ticks)
    for value in y_ticks:
        y = at_y(value)
        kind = "zero" if value == 0 else "rule"
        parts.append(f'<line class="{kind}" x1="{LEFT}" x2="{width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(value, places)}</text>')
    for value in ticks(x_low, x_high, about=max(2, width // 90)):
        if value == int(value):  # there is no iteration 2.5
            parts.append(
                f'<text x="{at_x(value):.1f}" y="{height - 6}" text-anchor="middle">{int(value)}</text>'
            )
    if curve.low is not None and curve.high is not None:
        parts.append(_band(curve.x, curve.low, curve.high, at_x, at_y))
    points = [(at_x(x), at_y(y), x, y) for x, y in zip(curve.x, curve.y, strict=True) if math.isfinite(y)]
    parts.append(f'<path class="line" d="{_path(curve, at_x, at_y)}"/>')
    if len(points) <= MAX_DOTS:
        parts += [f'<circle class="dot" cx="{px:.1f}" cy="{py:.1f}" r="2.5"/>' for px, py, _, _ in points]
    hover = json.dumps([[round(px, 1), round(py, 1), f"{int(x)}: {number(y)}"] for px, py, x, y in points])
    parts.append('<g class="hover"><line/><circle r="4"/><text></text></g>')
    return Markup(
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}" '
        f'data-points="{escape(hover)}" data-top="{TOP}" data-bottom="{height - BOTTOM}">'
        f"{''.join(parts)}</svg>"
    )


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


def _range(curve: Curve) -> tuple[float, float]:
    """What the y axis spans: everything drawn and 6% of air; never nothing."""
    values = [
        v for line in (curve.y, curve.low, curve.high) if line is not None for v in line if math.isfinite(v)
    ]
    low, high = min(values), max(values)
    if high - low <= TINY * max(1.0, abs(high)):
        if low == 0:
            return -0.06, 1.06  # a count that stays 0: no axis of negative counts
        pad = abs(high) * 0.1
        return low - pad, high + pad
    air = 0.06 * (high - low)
    return low - air, high + air


def _places(values: Sequence[float]) -> int | None:
    """Decimals that tell neighbouring ticks apart; None (four significant digits) where those are many."""
    if len(values) < 2:
        return None
    step = values[1] - values[0]
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    return places if places <= 4 else None


def _path(curve: Curve, at_x: Scale, at_y: Scale) -> str:
    """An SVG path that lifts the pen over gaps."""
    steps, down = [], False
    for x, y in zip(curve.x, curve.y, strict=True):
        if not math.isfinite(y):
            down = False
            continue
        steps.append(f"{'L' if down else 'M'}{at_x(x):.1f} {at_y(y):.1f}")
        down = True
    return "".join(steps)


def _band(xs: Sequence[float], lows: Sequence[float], highs: Sequence[float], at_x: Scale, at_y: Scale) -> str:
    """The area between low and high, over the iterations where both are known."""
    edges = [
        (at_x(x), at_y(low), at_y(high))
        for x, low, high in zip(xs, lows, highs, strict=True)
        if math.isfinite(low) and math.isfinite(high)
    ]
    if len(edges) < 2:
        return "".join(
            f'<line class="span" x1="{x:.1f}" x2="{x:.1f}" y1="{a:.1f}" y2="{b:.1f}"/>' for x, a, b in edges
        )
    there = [f"{x:.1f},{high:.1f}" for x, _, high in edges]
    back = [f"{x:.1f},{low:.1f}" for x, low, _ in reversed(edges)]
    return f'<polygon class="band" points="{" ".join(there + back)}"/>'
