"""Numbers as text: with the digits their interval supports, and no more."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

MISSING = "–"


def decimals(low: float, high: float) -> int:
    """Decimals that show the width of [low, high] with two significant digits, between 0 and 6."""
    width = abs(high - low)
    if not math.isfinite(width) or width == 0:
        return 3
    return min(6, max(0, 1 - math.floor(math.log10(width))))


def number(value: float | None, places: int | None = None, *, sign: bool = False) -> str:
    """`value` with `places` decimals (four significant digits where None); a dash where there is none."""
    if value is None or not math.isfinite(value):
        return MISSING
    plus = "+" if sign else ""
    text = f"{value:{plus}.{places}f}" if places is not None else f"{value:{plus}.4g}"
    return text.replace("-", "−")  # the typographic minus is as wide as the plus, so that columns line up


def interval(entry: Mapping[str, Any] | None, *, sign: bool = False, scale: float = 1.0) -> tuple[str, str]:
    """{"mean", "ci95"} -> ("0.512", "[0.481, 0.543]"); the second is empty where there is no interval."""
    if not entry or entry.get("mean") is None:
        return MISSING, ""
    low, high = entry.get("ci95") or (None, None)
    mean = entry["mean"] * scale
    if low is None or high is None:
        return number(mean, sign=sign), ""
    places = decimals(low * scale, high * scale)
    bounds = (number(value * scale, places, sign=sign) for value in (low, high))
    return number(mean, places, sign=sign), f"[{', '.join(bounds)}]"


def percent(entry: Mapping[str, Any] | None) -> tuple[str, str]:
    """A rate in 0..1 -> ("62.5%", "[50.1, 73.4]")."""
    if not entry or entry.get("mean") is None:
        return MISSING, ""
    low, high = entry.get("ci95") or (None, None)
    bounds = "" if low is None or high is None else f"[{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * entry['mean']:.1f}%", bounds


def duration(seconds: float | None) -> str:
    """42.3 -> "42.3 s", 754 -> "12 min 34 s", 7380 -> "2 h 3 min"."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 60:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds // 60)} min {int(seconds % 60)} s"
    return f"{int(seconds // 3600)} h {int(seconds % 3600 // 60)} min"
