"""The live display of a terminal: four rows that stay below the lines, and go when the run ends."""

from __future__ import annotations

import math
from typing import Any

from rich import live
from rich.console import Console
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from rayalign.progress.lines import clock, dropped_words, reward_words
from rayalign.records import IterationRecord

BLOCKS = "▁▂▃▄▅▆▇█"
CURVE_POINTS = 24
REFRESH_PER_S = 4.0


class Live:
    """What goes on now. `first` is how many iterations were done when this start began."""

    def __init__(self, iterations: int, done: int, console: Console | None = None) -> None:
        self.first = self._done = done
        self._iterations = iterations
        self._stage = "starting"
        self._rewards: list[float] = []
        self._learned, self._pace, self._left = "", "", "-"
        console = console or Console(highlight=False)
        # On a narrow terminal a line is wrapped, never cut.
        self._live = live.Live(
            self, console=console, refresh_per_second=REFRESH_PER_S, transient=True, redirect_stdout=False
        )
        self._live.start()

    def line(self, text: str) -> None:
        self._live.console.print(Text(text))

    def stage(self, text: str) -> None:
        self._stage = text.strip().splitlines()[0] if text.strip() else self._stage

    def drawing(self, num_drawn: int, num_tickets: int, waiting: dict[str, int]) -> None:
        """`num_drawn` tickets of this iteration (more where the next one is drawn meanwhile)."""
        if num_drawn < num_tickets:
            self._stage = f"drawing: {max(num_drawn, 0)} of {num_tickets} tickets"
        else:
            ahead = num_drawn - num_tickets
            self._stage = "training" + (f", and {ahead} tickets of the next iteration drawn" if ahead else "")
        if waiting:
            self._stage += f"; {len(waiting)} wait for policy version {min(waiting.values())}"

    def iteration(self, record: IterationRecord, start_reward: float, rate: float, left: float) -> None:
        metrics = record.metrics
        self._done = record.number
        self._rewards.append(metrics["reward"])
        accuracy = f"   accuracy {metrics['accuracy']:.2f}" if "accuracy" in metrics else ""
        self._learned = (
            f"{reward_words(metrics['reward'], start_reward).strip()}{accuracy}   loss {metrics['loss']:.4f}"
        )
        memory = metrics.get("memory/train_gpu_gb")
        parts = [f"{rate:.1f} pairs/s", f"lag {record.lag_max}", f"GPU {memory:.1f} GB" if memory else ""]
        parts.append(dropped_words(record).strip())
        self._pace, self._left = "   ".join(part for part in parts if part), clock(left)

    def close(self) -> None:
        self._live.stop()

    def __rich__(self) -> Any:
        """Called for every refresh."""
        rows = Table.grid(padding=(0, 2), expand=True)
        rows.add_column(style="dim", no_wrap=True, width=9)
        rows.add_column(overflow="ellipsis", no_wrap=True, ratio=1)
        bar = Table.grid(padding=(0, 2), expand=True)
        for ratio in (None, 1, None):
            bar.add_column(ratio=ratio, no_wrap=True)
        share = f"{100 * self._done / self._iterations:.0f}%"
        progress = ProgressBar(total=self._iterations, completed=self._done)
        bar.add_row(f"{self._done}/{self._iterations}", progress, f"{share}   left {self._left}")
        rows.add_row("iteration", bar)
        rows.add_row("now", self._stage)
        if self._learned:
            rows.add_row("training", Text.assemble(self._learned, "   ", (curve(self._rewards), "green")))
            rows.add_row("pace", self._pace)
        return rows


def curve(values: list[float]) -> str:
    """The last values as a row of blocks, lowest to highest; nothing where none is a number."""
    shown = [value for value in values if math.isfinite(value)][-CURVE_POINTS:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    scale = (len(BLOCKS) - 1) / (high - low) if high > low else 0.0
    return "".join(BLOCKS[round((value - low) * scale)] for value in shown)
