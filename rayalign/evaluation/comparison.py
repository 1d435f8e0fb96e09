"""Before against after, scorer by scorer: same prompts, same seeds, guiding ones apart from held-out ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rayalign.evaluation.formatting import MISSING, interval, percent
from rayalign.evaluation.image_set import ImageSet, require_same_rows
from rayalign.evaluation.intervals import change, mean_interval, win_rate

Comparison = dict[str, dict[str, Any]]


def compare(
    before: ImageSet,
    after: ImageSet,
    guiding: Sequence[str],
    heldout: Sequence[str],
    units: Mapping[str, str] | None = None,
) -> Comparison:
    """What tuning did to each scorer's mean, over pairs of pictures of the same prompt and seed.

    A pair in which either score failed is left out of all four numbers and counted, so that
    change.mean = after.mean - before.mean holds exactly.

    Args:
        guiding: scorers the run was trained on.
        heldout: scorers it never saw. A rise in the former with a fall in the latter is over-optimisation.
        units: scorer -> scale and unit, for tables.

    Returns scorer -> {"guiding": bool, "unit": str, "before", "after", "change", "win_rate": each {"mean",
    "ci95": [low, high], "n"}, "failed": pairs left out, "num_prompts": prompts that remain}.
    Raises ValueError unless prompts and seeds are the same in both, and KeyError where a scorer is missing.
    """
    require_same_rows(before, after)
    roles = {**dict.fromkeys(guiding, True), **dict.fromkeys(heldout, False)}
    return {
        scorer: {
            "guiding": is_guiding,
            "unit": (units or {}).get(scorer, ""),
            **_paired(before.scores[scorer], after.scores[scorer], before.prompts),
        }
        for scorer, is_guiding in roles.items()
    }


def _paired(before_N: np.ndarray, after_N: np.ndarray, prompts: list[str]) -> dict[str, Any]:
    usable_N = np.isfinite(before_N) & np.isfinite(after_N)
    return {
        "before": mean_interval(np.where(usable_N, before_N, np.nan), prompts).to_json(),
        "after": mean_interval(np.where(usable_N, after_N, np.nan), prompts).to_json(),
        "change": change(before_N, after_N, prompts).to_json(),
        "win_rate": win_rate(before_N, after_N, prompts).to_json(),
        "failed": int((~usable_N).sum()),
        "num_prompts": len({prompt for prompt, usable in zip(prompts, usable_N, strict=True) if usable}),
    }


def overoptimised(comparison: Comparison) -> list[str]:
    """Held-out scorers that fell for sure (their interval lies below 0) while a guiding one rose for sure."""

    def bound(entry: Mapping[str, Any], side: int) -> float:
        value = (entry.get("change", {}).get("ci95") or (None, None))[side]
        return 0.0 if value is None else value

    if not any(entry.get("guiding") and bound(entry, 0) > 0 for entry in comparison.values()):
        return []
    return [name for name, entry in comparison.items() if not entry.get("guiding") and bound(entry, 1) < 0]


def before_after_table(comparison: Comparison) -> str:
    """The comparison as aligned plain text for a terminal, units and failures named."""
    header: tuple[str, ...] = ("scorer", "role", "before", "after", "change", "win rate", "pairs", "unit")
    rows = [header]
    for scorer, entry in comparison.items():
        means = [" ".join(interval(entry.get(key))).strip() for key in ("before", "after")]
        difference = " ".join(interval(entry.get("change"), sign=True)).strip()
        wins = " ".join(percent(entry.get("win_rate"))).strip()
        role = "guiding" if entry.get("guiding") else "held-out"
        pairs = str((entry.get("change") or {}).get("n", 0))
        rows.append((scorer, role, *means, difference, wins, pairs, entry.get("unit") or ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))

    num_prompts = max((entry.get("num_prompts", 0) for entry in comparison.values()), default=0)
    lines.append("")
    lines.append(
        f"[95% interval], bootstrap over {num_prompts} prompts; win rate: same prompt and seed, ties one half"
    )
    for scorer, entry in comparison.items():
        if entry.get("failed"):
            lines.append(f"{scorer}: pairs left out, since a score failed: {entry['failed']}")
    for scorer in overoptimised(comparison):
        lines.append(f"{scorer} fell while the guiding reward rose: a sign of over-optimisation")
    # Plain ASCII: a log that is not UTF-8 must not stop a run that is done.
    return "\n".join(lines).replace("−", "-").replace(MISSING, "-")
