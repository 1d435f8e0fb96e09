"""What a scoring came to: mean, median, count and failures of each scorer, and what could not be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from rayalign.evaluation.formatting import number

UNREADABLE = "image: "  # how the reason of a row begins whose image was not read
NUM_LISTED = 1000  # in the summary; the parquet has all
HEADINGS = ("scorer", "mean", "median", "scored", "failed", "scale")


def summarise_scores(table: pa.Table, scorers: Sequence[str], units: Sequence[str]) -> dict[str, Any]:
    """Counts and averages; a failed score is in none of them but `failed`. An image that was not read is no failure
    of a scorer's: it is counted apart."""
    reasons = [reason or "" for reason in table["reason"].to_pylist()]
    unread = [reason.startswith(UNREADABLE) for reason in reasons]
    rows: dict[str, Any] = {}
    for name, unit in zip(scorers, units, strict=True):
        scores_N = table[name].to_numpy().astype(np.float64)
        kept = scores_N[np.isfinite(scores_N)]
        rows[name] = {
            "mean": float(kept.mean()) if len(kept) else None,
            "median": float(np.median(kept)) if len(kept) else None,
            "scored": len(kept),
            "failed": len(scores_N) - len(kept) - sum(unread),
            "unit": unit,
        }
    ids = table["id"].to_pylist()
    told = [{"id": name, "reason": reason} for name, reason in zip(ids, reasons, strict=True) if reason]
    parts = (part for reason in reasons if reason for part in reason.split("; "))
    return {
        "num_images": len(reasons),
        "num_unreadable": sum(unread),
        "scorers": rows,
        "reasons": dict(Counter(parts).most_common()),
        "without_score": told[:NUM_LISTED],
    }


def score_text(summary: dict[str, Any]) -> str:
    """The table, for a person."""
    rows = [HEADINGS]
    for name, row in summary["scorers"].items():
        counts = (str(row["scored"]), str(row["failed"]))
        rows.append((name, number(row["mean"]), number(row["median"]), *counts, row["unit"]))
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS) - 1)]
    lines = []
    for row in rows:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=False)),
        ]
        lines.append("  ".join([*cells, row[-1]]))
    return "\n".join(lines)


def unscored_text(summary: dict[str, Any], most: int = 5) -> str:
    """What has no score, for a person: the first few, and where the rest is. Empty if all went well."""
    told = summary["without_score"]
    num_told = sum(summary["reasons"].values())
    lines = [f"  {row['id']}: {row['reason']}" for row in told[:most]]
    if not lines:
        return ""
    more = [f"  ... the others are in column `reason` ({num_told} reasons in all)"] if num_told > most else []
    head = f"{summary['num_unreadable']} of {summary['num_images']} images could not be read; rows without a score:"
    return "\n".join([head, *lines, *more])
