"""What scoring as a service gains and costs: batching, replicas, and the overhead of a call by its size. In one run.

  python benchmarks/scoring.py                               # about two minutes
  python benchmarks/scoring.py --repeats 20 --json scoring.json
  python benchmarks/scoring.py --scorer pickscore --gpus 0.5  # batching of a real tower; its weights must be there

Batching: `--images` images of the scorer, asked for one by one (each call waits for the answer before), as single
images all at once from a service that may not batch and from one that may, and in calls of a whole batch.
Replicas: `--images` single images at once, each a fixed amount of work on one core, from one replica and from two.
Overhead: round trip of a call minus the time that the scorer itself says it took. It is what the client, the object
store, Ray Serve and the replica's batching cost, copies included; `with gradient` sends as many bytes back.

All ways of a part are asked in turn, `--repeats` times, so that the machine's moods meet them alike; a ratio is the
median of ratios taken side by side, beside the least and the most of them. Exits with 1 if two ways of asking do not
give the same scores: then it compares nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any


def main() -> None:
    given = parse(sys.argv[1:])
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # an embedded Ray warns unless this is explicit
    # After parsing: Ray takes seconds to import, and --help must not.
    from output import write_json
    from scoring_load import measure

    result = {"benchmark": "scoring", "settings": settings(given), **measure(given)}
    print(report(result))
    write_json(given.json, result)
    sys.exit(0 if result["same_scores"] else 1)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scorer", default="toy-clip", help="for batching [toy-clip]")
    parser.add_argument("--images", type=int, default=32, help="in a repeat of batching, and of replicas [32]")
    parser.add_argument("--batch", type=int, default=16, help="images that a replica takes together [16]")
    parser.add_argument("--size", type=int, default=64, help="pixels a side, for batching [64]")
    parser.add_argument("--work-s", type=float, default=0.1, help="seconds of a core for an image, for replicas [0.1]")
    parser.add_argument("--gpus", type=float, default=0.0, help="of each replica of --scorer [0]")
    parser.add_argument("--repeats", type=int, default=10, help="of each, after one to warm up [10]")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there")
    return parser.parse_args(arguments)


def settings(given: argparse.Namespace) -> dict[str, Any]:
    kept = {name: value for name, value in vars(given).items() if name != "json"}
    return kept | {"cores": len(os.sched_getaffinity(0))}


def report(result: dict[str, Any]) -> str:
    """Three tables in Markdown."""
    from output import markdown_table

    given = result["settings"]
    sides = f"{given['size']} x {given['size']} px"
    overhead = [
        [f"{one['megabytes']:.1f} MB ({one['images']} x {one['side']} px)", way, *_shown(one[key], 1000, ".1f")]
        for one in result["overhead"]
        for way, key in (("scores", "overhead_s"), ("with gradient", "overhead_with_gradient_s"))
    ]
    return "\n".join(
        [
            f"{given['cores']} cores; medians of {given['repeats']} repeats, and the least and the most of them\n",
            f"Batching: {given['images']} images of {sides} for {given['scorer']}, one replica\n",
            _compared_table(result["batching"]),
            f"\nReplicas: {given['images']} single images, {given['work_s']:g} s of a core each\n",
            _compared_table(result["replicas"]),
            "\nOverhead of a call: round trip minus the scorer's own time\n",
            markdown_table(("call", "asked for", "ms", "min", "max"), overhead),
            f"\nscores of all ways: {'the same' if result['same_scores'] else 'NOT THE SAME'}",
        ]
    )


def _compared_table(part: dict[str, Any]) -> str:
    from output import markdown_table

    rows = [[name, *_shown(one["images_per_s"]), *_shown(one["ratio"], 1, ".2f")] for name, one in part.items()]
    return markdown_table(("", "images/s", "min", "max", "ratio", "min", "max"), rows)


def _shown(found: dict[str, float], scale: float = 1.0, digits: str = ".3g") -> list[str]:
    return [format(scale * found[name], digits) for name in ("median", "min", "max")]


if __name__ == "__main__":
    main()
