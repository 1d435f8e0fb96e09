"""What a person sees while a run goes: one live line in a terminal, one plain line an iteration in a log."""

from __future__ import annotations

import math
import sys
import time

from rayalign.records import BROKEN_STATUSES, IterationRecord


class Progress:
    """Iteration, reward with its change, pairs/s, time left."""

    def __init__(self, iterations: int, done: int = 0) -> None:
        self._iterations, self._first = iterations, done
        self._started = self._last = time.monotonic()
        self._live = sys.stdout.isatty()
        self._start_reward: float | None = None
        self._width = 0
        self._second: tuple[float, int] | None = None  # when the second iteration began, and how many were done then

    def stage(self, text: str) -> None:
        """A sentence about what happens now."""
        self._clear()
        print(text, flush=True)

    def waiting(self, text: str) -> None:
        """A passing state; only a terminal shows it."""
        if self._live:
            self._clear()
            text = text[:100]
            self._width = len(text)
            print(text, end="\r", flush=True)

    def iteration(self, record: IterationRecord) -> None:
        now = time.monotonic()
        done = record.iteration + 1
        pairs = record.counts["pairs_kept"]
        reward = record.metrics["reward"]
        self._start_reward = reward if self._start_reward is None else self._start_reward
        left = self._pace(now, done) * (self._iterations - done)
        self._clear()
        print(
            f"iteration {done:>3}/{self._iterations}  {_reward(reward, self._start_reward)}"
            f"loss {record.metrics['loss']:.4f}  {_accuracy(record)}"
            f"{pairs / max(now - self._last, 1e-9):6.1f} pairs/s  {dropped(record)}left {clock(left)}",
            flush=True,
        )
        self._last = now

    def _pace(self, now: float, done: int) -> float:
        """Seconds an iteration. Without the first where there are others: actors start and load models in it."""
        if self._second is None:
            self._second = (now, done)
            return (now - self._started) / (done - self._first)
        since, counted = self._second
        return (now - since) / max(done - counted, 1)

    def _clear(self) -> None:
        if self._width:
            print(" " * self._width, end="\r")
            self._width = 0


def _reward(reward: float, start: float) -> str:
    """A preference set brings no rewards; then there are none to show."""
    return "" if math.isnan(reward) else f"reward {reward:9.4f} ({reward - start:+.4f})  "


def _accuracy(record: IterationRecord) -> str:
    """Share of pairs that the policy ranks as labelled; objectives without pairs have none."""
    return f"accuracy {record.metrics['accuracy']:.2f}  " if "accuracy" in record.metrics else ""


def dropped(record: IterationRecord) -> str:
    """ "3 ties, 1 unscored  ", or nothing."""
    named = (
        ("pairs_tie", "ties"),
        ("pairs_small_gap", "too close"),
        ("pairs_score_failed", "unscored"),
        ("pairs_unlabelled", "unlabelled"),
        *((f"pairs_{status}", status.replace("_", " ")) for status in BROKEN_STATUSES),
    )
    parts = [f"{record.counts[key]} {word}" for key, word in named if record.counts.get(key)]
    return ", ".join(parts) + "  " if parts else ""


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
