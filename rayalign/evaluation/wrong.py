"""What went wrong in a run, in a few lines: for the end of the log and the top of the report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rayalign.records import LATENT_FAILED, SKIP_REASONS, SKIPPED_EMPTY, SKIPPED_OVERFLOW, IterationRecord

# Of the reasons to skip a step, those that are a fault.
FAULTS = tuple(reason for reason in SKIP_REASONS if reason not in (SKIPPED_EMPTY, SKIPPED_OVERFLOW))


def alarms(history: Sequence[IterationRecord]) -> list[dict[str, Any]]:
    """{"iteration", "guard", "text"} of every alarm; iterations count from 0, as in the history."""
    return [
        {"iteration": record.iteration, "guard": alarm["guard"], "text": alarm["text"]}
        for record in history
        for alarm in record.extra.get("alarms", ())
    ]


def rolled_back_to(history: Sequence[IterationRecord]) -> int | None:
    """The policy version that the run went back to and ended with; None if it did not, or went on since."""
    return history[-1].extra.get("rollback") if history else None


def what_went_wrong(summary: dict[str, Any], history: Sequence[IterationRecord]) -> list[str]:
    """Sentences, worst first; none of a run in which nothing did. Works of a run without a summary yet."""
    found = []
    if summary.get("stopped"):
        found.append(f"The run stopped itself: {summary['stopped']}")
    version = rolled_back_to(history)
    if version is not None:
        found.append(
            f"The run went back to policy version {version}, the last good one, and ended: that is what is saved and "
            f"what the pictures after tuning show. Iterations beyond {version} are in the curves alone."
        )
    said = summary.get("stopped") or ""
    for alarm in alarms(history):
        if alarm["text"] not in said:
            found.append(f"Iteration {alarm['iteration'] + 1}: {alarm['text']}")
    skipped = {reason: _total(history, f"skipped_steps_{reason}") for reason in FAULTS}
    if any(skipped.values()):
        parts = ", ".join(f"{count} of a {reason}" for reason, count in skipped.items() if count)
        found.append(f"Optimiser steps were skipped because a number was NaN or infinite: {parts}.")
    lost = _total(history, f"pairs_{LATENT_FAILED}")
    if lost:
        found.append(f"{lost} pairs were dropped because a latent was NaN or infinite.")
    unscored = _total(history, "heldout_scores_failed")
    if unscored:
        found.append(f"{unscored} scores of held-out measurements failed: curves and alarms are of the others.")
    return found


def _total(history: Sequence[IterationRecord], name: str) -> int:
    return sum(record.counts.get(name, 0) for record in history)
