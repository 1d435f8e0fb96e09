"""What a log shows of a run: one plain line an iteration, in words that the live display shares."""

from __future__ import annotations

import math

from rayalign.records import BROKEN_STATUSES, LATENT_FAILED, UNSCORED_STATUSES, IterationRecord


def iteration_line(
    record: IterationRecord, iterations: int, start_reward: float, pairs_per_s: float, left: float
) -> str:
    """One iteration: `learned_words`, pace, seconds left."""
    return (
        f"{learned_words(record, iterations, start_reward)}"
        f"{pairs_per_s:6.1f} pairs/s  {dropped_words(record)}left {clock(left)}"
    )


def learned_line(record: IterationRecord, iterations: int, start_reward: float) -> str:
    """For the live display, whose own rows have the pace: 80 columns hold it."""
    return (learned_words(record, iterations, start_reward) + dropped_words(record)).rstrip()


def learned_words(record: IterationRecord, iterations: int, start_reward: float) -> str:
    """Reward with its change since `start_reward`, and what training said."""
    return (
        f"iteration {record.number:>3}/{iterations}  {reward_words(record.metrics['reward'], start_reward)}"
        f"loss {record.metrics['loss']:.4f}  {accuracy_words(record)}"
    )


def reward_words(reward: float, start: float) -> str:
    """A preference set brings no rewards; then there are none to show."""
    return "" if math.isnan(reward) else f"reward {reward:9.4f} ({reward - start:+.4f})  "


def accuracy_words(record: IterationRecord) -> str:
    """Share of pairs that the policy ranks as labelled; objectives without pairs have none."""
    return f"accuracy {record.metrics['accuracy']:.2f}  " if "accuracy" in record.metrics else ""


def dropped_words(record: IterationRecord) -> str:
    """ "3 ties, 1 unscored  ", or nothing."""
    named = (
        (("tie",), "ties"),
        (("small_gap",), "too close"),
        (UNSCORED_STATUSES, "unscored"),
        ((LATENT_FAILED,), "not finite"),
        (("unlabelled",), "unlabelled"),
        *(((status,), status.replace("_", " ")) for status in BROKEN_STATUSES),
    )
    counted = [(sum(record.counts.get(f"pairs_{one}", 0) for one in statuses), word) for statuses, word in named]
    parts = [f"{count} {word}" for count, word in counted if count]
    return ", ".join(parts) + "  " if parts else ""


def clock(seconds: float) -> str:
    """ "1:02:03" or "2:03"; "?" of NaN."""
    if math.isnan(seconds):
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
