"""The report's results as text and drawings: what was tuned, what it did to every scorer, and what drifted.

Every function takes what is there and leaves out what is not: the page of a run that still goes is made of
the same parts.
"""

from __future__ import annotations

from typing import Any

from rayalign.evaluation.bar_charts import rate_bar
from rayalign.evaluation.charts import whisker
from rayalign.evaluation.drift import MEANING
from rayalign.evaluation.formatting import duration, interval, percent
from rayalign.evaluation.history import wall_seconds
from rayalign.evaluation.report_run import pair_counts
from rayalign.records import KEPT, IterationRecord

Dict = dict[str, Any]
# part of the method -> the kind that goes without saying
DEFAULTS = {"objective": None, "pairs": None, "reference": "fixed", "timesteps": "uniform"}
History = list[IterationRecord]


def rewards(config: Dict, summary: Dict) -> list[Dict]:
    """Guiding scorers with weight and unit, from the summary or else the config."""
    return summary.get("rewards") or config.get("rewards") or []


def subtitle(config: Dict, summary: Dict, history: History) -> str:
    """One sentence: what was tuned, with what, how far."""
    model = summary.get("model") or config.get("model", {}).get("path") or "A model"
    names = ", ".join(reward.get("scorer", "?") for reward in rewards(config, summary)) or "its reward"
    done = summary.get("num_iterations", len(history))
    planned = config.get("iterations", done)
    progress = f"{done}" if done >= planned else f"{done} of {planned}"
    how = method(config, summary)
    return f"{model}, tuned for {progress} iteration{'s' * (done != 1)} on {names}{f': {how}' if how else ''}."


def method(config: Dict, summary: Dict) -> str:
    """The choices that make the method: "DPO on stepwise pairs, copied reference"; empty where they are not known."""
    chosen = summary.get("method") or {}
    kinds = {part: chosen.get(part) or (config.get(part) or {}).get("kind") for part in DEFAULTS}
    if not kinds["objective"] or not kinds["pairs"]:
        return ""
    others = [f"{kind} {part}" for part, kind in kinds.items() if kind and DEFAULTS[part] not in (None, kind)]
    if (config.get("pairs", {}).get("guidance") or {}).get("enabled"):
        others.insert(0, "guided")
    rows = "samples" if kinds["pairs"] == "sample" else f"{kinds['pairs']} pairs"
    return ", ".join([f"{kinds['objective'].upper()} on {rows}", *others])


def score_rows(comparison: Dict, guiding: list[Dict]) -> list[Dict]:
    """One row per scorer, guiding ones first. Changes differ in unit, so each whisker has its own scale."""
    units = {reward.get("scorer"): reward.get("unit", "") for reward in guiding}
    rows = []
    for name, entry in comparison.items():
        change, wins = entry.get("change") or {}, entry.get("win_rate") or {}
        reach = max((abs(v) for v in (change.get("mean"), *_bounds(change)) if v is not None), default=0) or 1
        rows.append(
            {
                "scorer": name,
                "guiding": bool(entry.get("guiding", name in units)),
                "unit": entry.get("unit") or units.get(name) or "",
                "before": interval(entry.get("before")),
                "after": interval(entry.get("after")),
                "change": interval(change, sign=True),
                "change_plot": whisker(change.get("mean"), *_bounds(change), (-reach, reach), 0),
                "wins": percent(wins),
                "wins_plot": rate_bar(wins.get("mean"), *_bounds(wins)),
                "n": change.get("n") or (entry.get("before") or {}).get("n"),
                "failed": entry.get("failed", 0),
            }
        )
    return sorted(rows, key=lambda row: not row["guiding"])


def facts(summary: Dict, history: History) -> list[tuple[str, str]]:
    """The row of small figures under the headline."""
    pairs = pair_counts(summary, history).get(KEPT)
    wall = wall_seconds(summary, history)
    restarts = (summary.get("ray") or {}).get("restarts") or {}
    version = summary.get("policy_version", history[-1].version if history else None)
    lag = summary.get("lag_max", max((record.lag_max for record in history), default=None))
    found = [
        ("iterations", summary.get("num_iterations", len(history)) or None),
        ("pairs trained on", f"{pairs:,}" if pairs is not None else None),
        ("wall time", duration(wall) if wall is not None else None),
        ("policy version", version),
        ("largest lag", lag),
        ("restarts", sum(restarts.values()) if restarts else None),
    ]
    return [(label, str(value)) for label, value in found if value is not None]


def drift_rows(shift: Dict) -> list[Dict]:
    """One row per drift statistic; values may be plain numbers or means with intervals."""
    before, after, change = (shift.get(side) or {} for side in ("before", "after", "change"))
    return [
        {
            "name": name.replace("_", " "),
            "meaning": MEANING.get(name, ""),
            "before": interval(_entry(before.get(name))),
            "after": interval(_entry(after.get(name))),
            "change": interval(_entry(change.get(name)) or _plain_change(before, after, name), sign=True),
        }
        for name in dict.fromkeys([*before, *after])
    ]


def _bounds(entry: Dict) -> tuple[float | None, float | None]:
    low, high = entry.get("ci95") or (None, None)
    return low, high


def _entry(value: Any) -> Dict | None:
    return {"mean": value} if isinstance(value, int | float) else value


def _plain_change(before: Dict, after: Dict, name: str) -> Dict | None:
    """The difference of two means where a summary holds no paired change."""
    was, now = ((_entry(side.get(name)) or {}).get("mean") for side in (before, after))
    return None if was is None or now is None else {"mean": now - was}
