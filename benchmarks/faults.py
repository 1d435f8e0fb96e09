"""Kills every part of a run at a random moment, and compares what comes out with a run that nothing disturbed.

  python benchmarks/faults.py --seeds 10 --markdown faults.md --json faults.json

A toy run of 12 iterations as a job in a cluster of three nodes. For each seed, in random order, each after a random
iteration and a random wait: SIGKILL to a rollout actor, a scorer replica, a train worker, the PolicyBoard, the Serve
controller, a whole worker node (a new one joins), and the driver (the same command is given again); board and scorer
also fall silent for some seconds. With max_lag 0 the final LoRA must be the undisturbed run's, bit for bit.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fault_cluster import TITLES, FaultCluster
from output import markdown_table, table, write_json

from rayalign.evaluation.history import read_history
from rayalign.learning.checkpoint_store import CheckpointStore

PAUSED = {"stalled board": "board", "stalled scorer": "scorer replica"}
KINDS = (*TITLES, "node", "driver", *PAUSED)
ROOT = Path(__file__).parents[1]
LONGEST_WAIT_S = 3.0  # into the iteration that a kill hits, start-up of a restart included
HEADER = ("seed", "kills: after iteration + seconds", "ended", "missing", "twice", "LoRA", "history", "more s")
SETTINGS = {
    "iterations": 12,
    "sampler.num_steps": 6,
    "pairs.tuned_steps": "5,3",
    "rollout.samples_per_ticket": 2,
    "rollout.tickets_per_iteration": 4,
    "train.optimizer_steps": 1,
    "placement.rollout.min": 1,
    "placement.rollout.max": 2,
    "placement.rollout.cpus": 0.5,
    "placement.train.cpus": 0.5,
    "placement.scorer.cpus": 0.2,
    "evaluation.num_prompts": 2,
    "evaluation.seeds_per_prompt": 1,
    "stall_timeout_s": 120,
}


@dataclass(frozen=True)
class Kill:
    what: str
    after: int  # iterations done
    wait_s: float


@dataclass
class Outcome:
    """One seed's row."""

    seed: int
    planned: int
    kills: list[str] = field(default_factory=list)
    ended: bool = False
    missing: int = 0  # pairs
    twice: int = 0
    same_lora: bool = False
    same_history: bool = False  # counts and metrics of every iteration
    more_s: float = float("nan")

    @property
    def good(self) -> bool:
        whole = self.same_lora and self.same_history and not self.missing and not self.twice
        return self.ended and whole and len(self.kills) == self.planned  # a kill that never came shows nothing

    def row(self) -> list[object]:
        same = ("other bits", "same bits")
        return [
            self.seed, "; ".join(self.kills), "yes" if self.ended else "NO", self.missing, self.twice,
            same[self.same_lora], ("other", "same")[self.same_history], f"{self.more_s:.0f}",
        ]  # fmt: skip


def plan(seed: int, kinds: list[str], iterations: int) -> list[Kill]:
    """Each kind once, each after another iteration, none after the last."""
    rng = random.Random(seed)
    moments = sorted(rng.sample(range(1, iterations - 1), len(kinds)))
    order = rng.sample(kinds, len(kinds))
    return [Kill(what, after, rng.uniform(0, LONGEST_WAIT_S)) for what, after in zip(order, moments, strict=True)]


class Job:
    """The run as a process of its own; its output is appended to a log."""

    def __init__(self, address: str, folder: Path, name: str, settings: dict[str, Any]) -> None:
        options = [part for key, value in settings.items() for part in (f"--{key}", str(value))]
        job = str(ROOT / "jobs" / "tailorpo_sdxl.py")
        self._command = [sys.executable, job, "--output", str(folder), "--name", name, *options]
        self._environment = os.environ | {"RAY_ADDRESS": address, "PYTHONPATH": str(ROOT)}
        self._path = folder / f"{name}.log"
        self._log = self._path.open("ab")
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            self._command, env=self._environment, stdout=self._log, stderr=subprocess.STDOUT, cwd=ROOT
        )

    def output(self) -> str:
        return self._path.read_text()

    def restart(self) -> str:
        """Kills the driver and gives the same command again."""
        self.process.kill()
        self.process.wait()
        self.start()
        return "driver"


def run_once(folder: Path, name: str, kills: list[Kill], settings: dict[str, Any], timeout_s: float) -> tuple[Any, ...]:
    """(what was killed when, whether the run ended well, seconds)."""
    rng = random.Random(name)
    done: list[str] = []
    with FaultCluster() as cluster:
        started = time.monotonic()
        job = Job(cluster.address, folder, name, settings)
        due = list(kills)
        while job.process.poll() is None and time.monotonic() - started < timeout_s:
            if due and len(read_history(folder / name)) >= due[0].after:
                kill = due.pop(0)
                time.sleep(kill.wait_s)
                if job.process.poll() is None:
                    done.append(f"{_kill(kill.what, cluster, job, rng)}: {kill.after} + {kill.wait_s:.1f}")
            time.sleep(0.1)
        ended = job.process.poll() == 0
        job.process.kill()
        job.process.wait()
        return done, ended, time.monotonic() - started


def _kill(what: str, cluster: FaultCluster, job: Job, rng: random.Random) -> str:
    if what == "driver":
        return job.restart()
    if what in PAUSED:
        return cluster.pause(PAUSED[what], rng)
    return cluster.kill_node(rng) if what == "node" else cluster.kill(what, rng)


def compare(outcome: Outcome, run: Path, undisturbed: Path) -> None:
    """Pairs by the history's counts; LoRA and history bit for bit."""
    expected, found = read_history(undisturbed), read_history(run)
    by_iteration: dict[int, list[Any]] = {record.iteration: [] for record in expected}
    for record in found:
        by_iteration.setdefault(record.iteration, []).append(record)
    for record in expected:
        pairs, got = num_pairs(record), [num_pairs(one) for one in by_iteration[record.iteration]]
        outcome.missing += max(0, pairs - sum(got))
        outcome.twice += max(0, sum(got) - pairs)
    outcome.same_history = [_learned(r) for r in found] == [_learned(r) for r in expected]
    outcome.same_lora = _same_arrays(run, undisturbed)


def num_pairs(record: Any) -> int:
    """Of an iteration, dropped ones included."""
    return sum(count for name, count in record.counts.items() if name.startswith("pairs_") and name != "pairs_guided")


def _learned(record: Any) -> str:
    """All of a record but the clock; as text, in which NaN equals itself."""
    return repr((record.iteration, record.version, sorted(record.metrics.items()), sorted(record.counts.items())))


def _same_arrays(run: Path, other: Path) -> bool:
    policies = []
    for folder in (run, other):
        store = CheckpointStore.at(str(folder / "checkpoints"))
        if not store.newest().done:
            return False
        policies.append(store.policy(store.newest().done))
    one, two = policies
    return one.keys() == two.keys() and all(np.array_equal(one[key], two[key]) for key in one)


def main() -> None:
    options = _options()
    folder = Path(options.output or tempfile.mkdtemp(prefix="rayalign-faults-")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {"model": options.model, "reward": options.reward, **SETTINGS}
    settings["iterations"] = options.iterations
    print(f"logs and runs: {folder}", flush=True)
    _, ended, plain_s = run_once(folder, "undisturbed", [], settings, options.timeout_s)
    if not ended:
        sys.exit(f"the undisturbed run failed; see {folder / 'undisturbed.log'}")
    print(f"undisturbed: {plain_s:.0f} s", flush=True)
    outcomes = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        kills, name = plan(seed, options.kinds.split(","), options.iterations), f"seed-{seed}"
        outcome = Outcome(seed, len(kills))
        outcome.kills, outcome.ended, seconds = run_once(folder, name, kills, settings, options.timeout_s)
        outcome.more_s = seconds - plain_s
        compare(outcome, folder / name, folder / "undisturbed")
        outcomes.append(outcome)
        print(table(HEADER, [outcome.row()]), flush=True)
        _write(options, plain_s, outcomes)
    print("\n" + table(HEADER, [outcome.row() for outcome in outcomes]))
    sys.exit(0 if all(outcome.good for outcome in outcomes) else "a seed lost something, or not all its kills came")


def _write(options: argparse.Namespace, plain_s: float, outcomes: list[Outcome]) -> None:
    """After each seed, so that a stopped measurement leaves what it has."""
    if options.markdown:
        Path(options.markdown).write_text(markdown_table(HEADER, [outcome.row() for outcome in outcomes]) + "\n")
    rows = [asdict(outcome) | {"good": outcome.good} for outcome in outcomes]
    write_json(options.json, {"undisturbed_s": plain_s, "seeds": rows})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1, help="how many, one after the other")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=12)
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"what to kill, of: {', '.join(KINDS)}")
    parser.add_argument("--model", default="toy-sdxl", help="toy-sdxl, toy-sd15, or stub")
    parser.add_argument("--reward", default="jpeg")
    parser.add_argument("--timeout-s", type=float, default=400.0, help="of one run")
    parser.add_argument("--output", help="folder of runs and logs; a temporary one where not given")
    parser.add_argument("--markdown", help="write the table to this file")
    parser.add_argument("--json", help="write the numbers to this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
