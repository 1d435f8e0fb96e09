"""A run driven into over-optimisation: when does the collapse alarm come, and what do the pictures look like then?

The toy SDXL is tuned for small JPEG files with a learning rate far too high; the alarm only warns, so that the run goes
on and shows what would have come. Afterwards the held-out pictures are drawn from the checkpoints before tuning, at the
last good measurement, at the alarm, and at the end.

python benchmarks/collapse.py                                   # twenty minutes on two cores
python benchmarks/collapse.py --lr 0.3 --iterations 12 --picture collapse.png
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from output import write_json

LR = 0.3
ITERATIONS = 20
HELD_OUT = "toy-clip"
ROWS = ("edge_density", "colour_entropy", "saturation", "diversity")
SHOWN = 8  # pictures of each policy


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lr", type=float, default=LR, help="the toy's own is 0.03")
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    parser.add_argument("--every", type=int, default=2, help="iterations between measurements")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", help="keep the run's folder here")
    parser.add_argument("--json", help="write the numbers here")
    parser.add_argument("--picture", help="write pictures of each policy here (PNG)")
    return parser.parse_args()


def main() -> None:
    given = parse()
    with tempfile.TemporaryDirectory() as temporary:
        config = settings(given, given.output or temporary)
        from rayalign.pipeline.run import run

        summary = run(config)
        found = [alarm for alarm in summary["alarms"] if alarm["guard"] == "collapse"]
        rows = measured(config, versions(config, found))
        print_table(rows, config, found)
        write_json(given.json, {"alarms": found, "policies": [row | {"images": None} for row in rows]})
        if given.picture:
            picture(rows, Path(given.picture))


def settings(given: argparse.Namespace, output: str) -> Any:
    """What `python jobs/tailorpo_sdxl.py --model toy-sdxl --reward jpeg` runs, but for the options below."""
    import sys

    sys.path.append(str(Path(__file__).resolve().parent.parent / "jobs"))
    from tailorpo_sdxl import DEFAULTS

    from rayalign.cli import parse as parse_settings

    options = {
        "--model": "toy-sdxl",
        "--reward": "jpeg",
        "--name": "collapse",
        "--output": output,
        "--seed": given.seed,
        "--iterations": given.iterations,
        "--train.lr": given.lr,
        "--evaluation.scorers": HELD_OUT,
        "--evaluation.every": given.every,
        "--evaluation.num_prompts": 16,
        "--evaluation.seeds_per_prompt": 2,
        "--guard.on_collapse": "warn",
        "--keep_checkpoints": given.iterations,
    }
    return parse_settings("", DEFAULTS, [str(part) for option in options.items() for part in option])


def versions(config: Any, found: list[dict[str, Any]]) -> dict[str, int]:
    """What is drawn: name -> policy version."""
    chosen = {"untuned": 0}
    if found:
        alarm = found[0]["iteration"] + 1
        chosen |= {"last good": alarm - config.evaluation.every, "alarm": alarm}
    return chosen | {"end": config.iterations}


def measured(config: Any, chosen: dict[str, int]) -> list[dict[str, Any]]:
    """Held-out pictures of each policy, with their mean scores and statistics."""
    from local_run import held_out_images

    from rayalign.evaluation.drift import statistics
    from rayalign.models.load import load_model
    from rayalign.pipeline.resume import store_of

    model, store, rows = load_model(config, "cpu"), store_of(config), []  # type: ignore[var-annotated]
    for name, version in chosen.items():
        if version:
            model.weights.load("policy", store.policy(version))
        images = held_out_images(config, model, "policy" if version else "initial", ["jpeg", HELD_OUT])
        means = {scorer: float(values.mean()) for scorer, values in images.scores.items()}
        means |= {statistic: float(values.mean()) for statistic, (values, _) in statistics(images).items()}
        rows.append({"policy": name, "version": version, **means, "images": images.images[:: len(images) // SHOWN]})
    return rows


def print_table(rows: list[dict[str, Any]], config: Any, found: list[dict[str, Any]]) -> None:
    names = ("jpeg", HELD_OUT, *ROWS)
    print(f"\n| policy | iteration | {' | '.join(name.replace('_', ' ') for name in names)} |")
    print("|---" * (2 + len(names)) + "|")
    for row in rows:
        print(f"| {row['policy']} | {row['version']} | {' | '.join(f'{row[name]:.3f}' for name in names)} |")
    print(f"\n{found[0]['text'] if found else 'no alarm'}")


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """One row of pictures a policy, the same prompts and seeds in each."""
    import numpy as np

    from rayalign.evaluation.grids import grid

    captions = [f"{row['policy']}, iteration {row['version']}" if k == 0 else "" for row in rows for k in range(SHOWN)]
    grid(np.concatenate([row["images"][:SHOWN] for row in rows]), SHOWN, captions).save(path)


if __name__ == "__main__":
    main()
