"""Do the papers' orderings come out on a toy? Every method at equal samples, several seeds, each in one process.

python benchmarks/orderings.py                                  # all: under 75 minutes on two cores
python benchmarks/orderings.py --groups online --seeds 1 --iterations 4
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from orderings_methods import GROUPS, ITERATIONS, Method, settings
from orderings_table import picture, print_tables
from output import write_json

SCORERS = ("jpeg", "toy-clip")
STYLE = "outlines"
STYLE_PROMPTS = 128


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", default=",".join(GROUPS), help="of online, reference, style")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, help=f"of 64 pictures each [{ITERATIONS}, style 32]")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    parser.add_argument("--work", default="runs/orderings", help="finished runs are kept here and not done again")
    parser.add_argument("--json", help="write the numbers here")
    parser.add_argument("--picture", help="write the reward curves here (PNG)")
    return parser.parse_args()


def main() -> None:
    given = parse()
    started = time.monotonic()
    jobs = [
        (group, method, reward, seed, given.iterations, given.work)
        for group in given.groups.split(",")
        for method in GROUPS[group]
        for reward in method.rewards
        for seed in range(given.seeds)
    ]
    results = []
    with multiprocessing.get_context("spawn").Pool(given.processes, maxtasksperchild=1) as pool:
        for result in pool.imap_unordered(one_run, jobs):
            results.append(result)
            minutes = (time.monotonic() - started) / 60
            print(f"{len(results)}/{len(jobs)} {result['group']} {result['method']} {minutes:.1f} min", flush=True)
    print_tables(results)
    print(f"\n{(time.monotonic() - started) / 60:.1f} minutes on {given.processes} processes")
    write_json(given.json, {"seeds": given.seeds, "runs": sorted(results, key=_key)})
    if given.picture:
        picture(results, Path(given.picture))


def _key(result: dict[str, Any]) -> tuple[str, str, str, int]:
    return result["group"], result["reward"], result["method"], result["seed"]


def one_run(job: tuple[str, Method, str, int, int | None, str]) -> dict[str, Any]:
    """Trains one method with one seed and measures it; read back where it was done before."""
    group, method, reward, seed, iterations, work = job
    tree = settings(method, reward, seed) | ({"iterations": iterations} if iterations else {})
    slug = f"{group}-{method.name}-{reward}-{seed}-{_digest(tree)}".replace(" ", "_").replace("+", "with")
    file = Path(work) / f"{slug}.json"
    if file.exists():
        return dict(json.loads(file.read_text()))
    warnings.filterwarnings("ignore")
    import torch

    torch.set_num_threads(1)
    from local_run import LocalRun, held_out_images
    from orderings_style import measure_style, style_pairs

    from rayalign.config import RunConfig

    if group == "style":
        tree["pairs"] = tree["pairs"] | {"path": str(style_pairs(Path(work), tree, STYLE, STYLE_PROMPTS))}
    config = RunConfig.model_validate(tree)
    run = LocalRun(config)
    before = held_out_images(config, run.model, "initial", list(SCORERS))
    run.train()
    after = held_out_images(config, run.model, "policy", list(SCORERS))
    result: dict[str, Any] = {
        "group": group,
        "method": method.name,
        "reward": reward,
        "seed": seed,
        "prompts": before.prompts,
        "before": {name: before.scores[name].tolist() for name in SCORERS},
        "after": {name: after.scores[name].tolist() for name in SCORERS},
        "history": [_point(record.metrics) for record in run.history],
        "pairs_kept": sum(record.counts["pairs_kept"] for record in run.history),
    }
    if group == "style":
        result["style"] = measure_style(before, after, STYLE)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}")
    partial.write_text(json.dumps(result))
    os.replace(partial, file)
    return result


def _digest(tree: dict[str, Any]) -> str:
    """Of the settings: a run of others is not read back for this one."""
    return hashlib.blake2b(json.dumps(tree, sort_keys=True).encode(), digest_size=4).hexdigest()


def _point(metrics: dict[str, float]) -> dict[str, float]:
    names = ("reward", "loss", "accuracy", "implicit_reward", "reference/divergence", "reference/frozen")
    return {name: metrics[name] for name in names if name in metrics and np.isfinite(metrics[name])}


if __name__ == "__main__":
    main()
