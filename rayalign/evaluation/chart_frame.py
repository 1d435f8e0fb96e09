"""Where values lie in a drawing, and the axes around it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from rayalign.evaluation.formatting import number

LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 24  # px around the plot: axis labels to the left and below
MAX_PLACES = 4  # decimals of a tick's number that fit beside the axis
TINY = 1e-12  # a range below this is a constant: dividing by it would draw rounding noise as a curve


@dataclass(frozen=True)
class Frame:
    """Values in [x_low, x_high] x [low, high] -> px of a drawing of `width` x `height`."""

    width: int
    height: int
    x_low: float
    x_high: float
    low: float
    high: float

    def at_x(self, value: float) -> float:
        share = (value - self.x_low) / (self.x_high - self.x_low) if self.x_high > self.x_low else 0.5
        return LEFT + share * (self.width - LEFT - RIGHT)

    def at_y(self, value: float) -> float:
        return TOP + (self.high - value) / (self.high - self.low) * (self.height - TOP - BOTTOM)

    def axes(self) -> list[str]:
        """Rules and numbers of the y axis, whole numbers of the x axis."""
        parts = []
        y_ticks = ticks(self.low, self.high)
        for value, text in zip(y_ticks, _tick_texts(y_ticks), strict=True):
            y = self.at_y(value)
            kind = "zero" if value == 0 else "rule"
            parts.append(f'<line class="{kind}" x1="{LEFT}" x2="{self.width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
        for value in ticks(self.x_low, self.x_high, about=max(2, self.width // 90)):
            if value == int(value):  # there is no iteration 2.5
                x = self.at_x(value)
                parts.append(f'<text x="{x:.1f}" y="{self.height - 6}" text-anchor="middle">{int(value)}</text>')
        return parts

    def svg(self, label: str, parts: Iterable[str], points: Sequence[Sequence[Any]]) -> Markup:
        """The drawing. `points`: [x px, y px, text, number of its series] that the pointer shows."""
        hover = json.dumps([[round(x, 1), round(y, 1), *rest] for x, y, *rest in points])
        return Markup(
            f'<svg class="chart" viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(label)}" '
            f'data-points="{escape(hover)}" data-top="{TOP}" data-bottom="{self.height - BOTTOM}">'
            f'{"".join([*self.axes(), *parts])}<g class="hover"><line/><circle r="4"/><text></text></g></svg>'
        )


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


def value_range(values: Sequence[float]) -> tuple[float, float]:
    """What the y axis spans: all finite values and 6% of air; never nothing."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = min(finite), max(finite)
    if high - low <= TINY * max(1.0, abs(high)):
        if low == 0:
            return -0.06, 1.06  # a count that stays 0: no axis of negative counts
        pad = abs(high) * 0.1
        return low - pad, high + pad
    air = 0.06 * (high - low)
    return low - air, high + air


def _tick_texts(values: Sequence[float]) -> list[str]:
    """With the decimals that tell neighbours apart; as powers of ten where those would not fit beside the axis."""
    if len(values) < 2:
        return [number(value) for value in values]
    power = math.floor(math.log10(values[1] - values[0]) + 1e-9)
    largest = max(abs(value) for value in values)
    if power >= -MAX_PLACES or largest >= 10.0**-MAX_PLACES * 100:
        return [number(value, min(max(0, -power), MAX_PLACES + 1)) for value in values]
    digits = math.floor(math.log10(largest) + 1e-9) - power
    return [_scientific(value, digits) for value in values]


def _scientific(value: float, digits: int) -> str:
    """2.6e-05 as "2.6e−5"."""
    mantissa, _, exponent = f"{value:.{digits}e}".partition("e")
    return f"{mantissa}e{int(exponent)}".replace("-", "−") if float(mantissa) else "0"
