"""A long run on stub models: does any of its processes grow?

  python benchmarks/soak.py --markdown soak.md --json soak.json --picture soak.png    # 300 iterations

After each iteration: resident memory and open files of every kind of process, and bytes in the object store.
Flat means that the mean of the last third is within 5% of the middle third's.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from output import markdown_table, table, write_json

from rayalign.config import RunConfig
from rayalign.evaluation.history import read_history

# What a process's title says -> what it is. Of several of a kind the sums are taken.
KINDS = {
    "PolicyBoard": "board",
    "MapBatches(Gate": "gate",
    "RolloutActor": "rollout actors",
    "RayTrainWorker": "train workers",
    "TrainController": "train controller",
    "SplitCoordinator": "pair stream's coordinator",
    "ServeReplica": "scorer replica",
    "ServeController": "serve controller",
}
DRIVER, STORE = "driver", "object store"
FLAT = 0.05  # relative
LOOK_S = 0.2
MB = 2**20
Series = dict[tuple[str, str], list[float]]  # (who, what) -> one value an iteration


def settings(folder: str, iterations: int) -> RunConfig:
    share = {"cpus": 0.5}
    return RunConfig.model_validate(
        {
            "name": "soak",
            "output": folder,
            "iterations": iterations,
            "model": {"path": "stub"},
            "rewards": [{"scorer": "stub"}],
            "sampler": {"num_steps": 6},
            "pairs": {"tuned_steps": [5, 3]},
            "rollout": {"samples_per_ticket": 4, "tickets_per_iteration": 4},
            "placement": {"rollout": {"min": 2, "max": 2} | share, "train": share, "scorer": {"cpus": 0.2}},
            "evaluation": {"num_prompts": 2, "seeds_per_prompt": 1},
        }
    )


class Sampler:
    """Measures in a thread, once for each new line of history."""

    def __init__(self, run: Path) -> None:
        self.series: Series = defaultdict(list)
        self._run, self._seen, self._samples, self._stop = run, 0, 0, threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stop.wait(LOOK_S):
            done = len(read_history(self._run))
            if done > self._seen:
                self._seen = done
                self._sample()

    def _sample(self) -> None:
        found: dict[tuple[str, str], float] = defaultdict(float)
        for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
            who = DRIVER if process.pid == os.getpid() else _kind(process)
            try:
                if who:
                    found[who, "MB"] += process.memory_info().rss / MB
                    found[who, "open files"] += process.num_fds()
            except psutil.NoSuchProcess:
                continue
        found[STORE, "MB"] = _object_store_bytes() / MB
        for key, value in found.items():
            # A process that starts late, or whose title says something else at the moment, leaves a gap, not a shift.
            values = self.series[key]
            values.extend([math.nan] * (self._samples - len(values)))
            values.append(value)
        self._samples += 1


def _kind(process: psutil.Process) -> str | None:
    try:
        title = " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return None
    return next((kind for name, kind in KINDS.items() if name in title), None)


def _object_store_bytes() -> float:
    import ray

    name = "object_store_memory"
    return float(ray.cluster_resources().get(name, 0.0) - ray.available_resources().get(name, 0.0))


HEADER = ("who", "what", "first third", "middle third", "last third", "change", "flat")


def verdicts(series: Series) -> list[list[object]]:
    """Means of each third, and whether the last is within FLAT of the middle one."""
    rows: list[list[object]] = []
    for (who, what), values in sorted(series.items(), key=lambda item: (item[0][1], item[0][0])):
        third = len(values) // 3
        parts = (values[:third], values[third : 2 * third], values[2 * third :])
        first, middle, last = (float(np.nanmean(part)) if part else math.nan for part in parts)
        change = (last - middle) / middle if middle else float(last > 0)
        rows.append([who, what, first, middle, last, f"{change:+.1%}", "yes" if abs(change) <= FLAT else "NO"])
    return rows


def draw(series: Series, path: str) -> None:
    """Resident memory of each kind over the iterations."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4))
    for axis, what in zip(axes, ("MB", "open files"), strict=True):
        for (who, kind), values in sorted(series.items()):
            if kind == what:
                axis.plot(range(1, len(values) + 1), values, label=who, linewidth=1)
        axis.set_xlabel("iteration")
        axis.set_title("resident memory, MB" if what == "MB" else what)
        axis.set_ylim(bottom=0)
    axes[0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    options = _options()
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    folder = options.output or tempfile.mkdtemp(prefix="rayalign-soak-")
    config = settings(folder, options.iterations)
    from rayalign.pipeline.run import run

    with Sampler(config.folder) as sampler:
        run(config)
    rows = verdicts(sampler.series)
    print(table(HEADER, rows))
    if options.markdown:
        Path(options.markdown).write_text(markdown_table(HEADER, rows) + "\n")
    numbers: dict[str, Any] = {f"{who}, {what}": values for (who, what), values in sampler.series.items()}
    write_json(options.json, {"iterations": options.iterations, "series": numbers})
    if options.picture:
        draw(sampler.series, options.picture)
    grown = [f"{row[0]} ({row[1]})" for row in rows if row[-1] != "yes"]
    sys.exit(f"not flat: {', '.join(grown)}" if grown else 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--output", help="folder of the run; a temporary one where not given")
    parser.add_argument("--markdown", help="write the table to this file")
    parser.add_argument("--json", help="write the series to this file")
    parser.add_argument("--picture", help="draw the curves to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
