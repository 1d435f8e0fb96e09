"""What Ray and this pipeline cost: the share of an iteration's wall time that no model is at work, on stubs that sleep.

  python benchmarks/overhead.py                            # 1, 4 and 16 rollout actors, about three minutes
  python benchmarks/overhead.py --actors 1 4 --iterations 10 --json overhead.json
  python benchmarks/overhead.py --lag                      # iterations a second with max_lag 0 and 1, and their ratio

Every actor draws k tickets an iteration, whatever their number n. With c calls a trajectory (25), d seconds a call,
m training forwards a ticket and s seconds each, beside the reference's d, a ticket is drawn in g = c d and trained on
in t = m (d + s). The trainer takes tickets in order, as soon as they are drawn, so without any overhead ticket j of
j = 0 .. n k - 1 is done at

    e_j = max(e_(j-1), (floor(j / n) + 1) g) + t,    an iteration takes e_(n k - 1)    with max_lag 0
                                                     and max(k g, n k t)               with max_lag 1

overhead = (wall - ideal) / wall. It counts everything else: Ray, scoring calls (the stub scorer's own work is nil),
checkpoint, publishing and its canaries, the stub's few real operations. Of the trainer's time it also says where:
`waiting` for tickets, `training`, `sync` (checkpoint and publishing), each beyond the ideal. The first iteration, which
starts the actors, is left out. Sleeping stubs need no cores, but importing torch in n actors does.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from loop_timing import StubLoad, TimedIteration

# Least gain of max_lag 1 where generating and training cost the same. Ideally 2, more where it hides latency.
LAG_RATIO = 1.7


def main() -> None:
    given = parse(sys.argv[1:])
    os.environ.setdefault("RAY_AUTH_MODE", "token")  # an embedded Ray warns unless this is explicit
    from loop_timing import StubLoad, stub_cluster
    from output import write_json

    with stub_cluster():
        if given.lag:
            result = measure_lag(given.iterations)
            print(lag_report(result))
        else:
            loads = [StubLoad(n, given.tickets, given.denoise_s, iterations=given.iterations) for n in given.actors]
            result = {"benchmark": "overhead", "loops": [measure_overhead(load) for load in loads]}
            print(overhead_report(result["loops"]))
    write_json(given.json, result)
    sys.exit(0 if result.get("ok", True) else 1)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actors", type=int, nargs="+", default=[1, 4, 16], help="rollout actors [1 4 16]")
    parser.add_argument("--tickets", type=int, default=2, help="an actor draws in an iteration [2]")
    parser.add_argument("--denoise-s", type=float, default=0.04, help="seconds of a denoiser call [0.04]")
    parser.add_argument("--iterations", type=int, default=6, help="with the first, which is not counted [6]")
    parser.add_argument("--lag", action="store_true", help="compare max_lag 0 and 1 instead")
    parser.add_argument("--json", metavar="FILE", help="write the numbers there")
    return parser.parse_args(arguments)


def measure_overhead(load: StubLoad) -> dict[str, Any]:
    """One loop. Seconds are medians over its iterations; `overhead` is a share. Inside `stub_cluster`."""
    from loop_timing import timed_loop

    timed, ideal_s = timed_loop(load), load.ideal_s()
    shares = [(one.wall_s - ideal_s) / one.wall_s for one in timed]
    return {
        "load": vars(load),
        "num_iterations": len(timed),
        "ideal_s": ideal_s,
        "wall_s": statistics.median(one.wall_s for one in timed),
        "overhead": {"min": min(shares), "median": statistics.median(shares), "max": max(shares)},
        "beyond_ideal_s": _where(timed, load),
    }


def _where(timed: list[TimedIteration], load: StubLoad) -> dict[str, float]:
    """The trainer's time beyond the ideal, by what it was doing. Sums to wall - ideal but for medians not adding up."""

    def median(kind: str) -> float:
        return statistics.median(one.record.seconds[kind] for one in timed)

    rest = (one.wall_s - sum(one.record.seconds[kind] for kind in ("waiting", "training", "sync")) for one in timed)
    return {
        "waiting": median("waiting") - (load.ideal_s() - load.training_s),
        "training": median("training") - load.training_s,
        "sync": median("sync"),
        "rest": statistics.median(rest),
    }


def overhead_report(loops: list[dict[str, Any]]) -> str:
    from output import table

    header = ("actors", "tickets", "ideal s", "wall s", "overhead", "min", "max", "waiting", "training", "sync", "rest")
    rows = []
    for loop in loops:
        load, shares = loop["load"], loop["overhead"]
        shown = [f"{shares[name]:.1%}" for name in ("median", "min", "max")]
        beyond = [f"{value:+.3f}" for value in loop["beyond_ideal_s"].values()]
        tickets = load["actors"] * load["tickets_per_actor"]
        rows.append([load["actors"], tickets, loop["ideal_s"], loop["wall_s"], *shown, *beyond])
    return table(header, rows) + "\nThe last four columns are the trainer's seconds beyond the ideal, by what it did."


def measure_lag(iterations: int = 6, actors: int = 2, denoise_s: float = 0.1) -> dict[str, Any]:
    """Both lags, one after the other, one ticket an actor, training as long as generating. Inside `stub_cluster`.

    One ticket in flight: with two, an actor that is done takes the whole next iteration while the other finishes the
    last, which doubles the time that an iteration takes to draw.
    """
    from loop_timing import StubLoad, timed_loop

    forwards = 5
    train_s = 25 * denoise_s / (actors * forwards) - denoise_s
    load = StubLoad(
        actors, 1, denoise_s, train_s, micro_batch=20 // forwards, tickets_in_flight=1, iterations=iterations
    )
    result: dict[str, Any] = {"benchmark": "lag", "rollout_s": load.ticket_rollout_s, "training_s": load.training_s}
    for max_lag in (0, 1):
        timed = timed_loop(load.with_lag(max_lag))
        result[f"lag_{max_lag}"] = {
            "iterations_per_s": 1 / statistics.median(one.wall_s for one in timed),
            "ideal_iterations_per_s": 1 / load.with_lag(max_lag).ideal_s(),
            "seconds": [one.wall_s for one in timed],
            "lag_max": max(one.record.lag_max for one in timed),
            "beyond_ideal_s": _where(timed, load.with_lag(max_lag)),
        }
    result["ratio"] = result["lag_1"]["iterations_per_s"] / result["lag_0"]["iterations_per_s"]
    ages = result["lag_0"]["lag_max"] == 0 and result["lag_1"]["lag_max"] <= 1
    return result | {"required_ratio": LAG_RATIO, "ok": ages and result["ratio"] >= LAG_RATIO}


def lag_report(result: dict[str, Any]) -> str:
    from output import table

    names = ("iterations_per_s", "ideal_iterations_per_s", "lag_max")
    rows = [
        [lag, *(one[name] for name in names), *(f"{value:+.3f}" for value in one["beyond_ideal_s"].values())]
        for lag, one in ((lag, result[f"lag_{lag}"]) for lag in (0, 1))
    ]
    return "\n".join(
        [
            f"generating {result['rollout_s']:.3g} s and training {result['training_s']:.3g} s an iteration",
            table(("max_lag", "iterations/s", "ideal", "oldest pair", "waiting", "training", "sync", "rest"), rows),
            f"ratio {result['ratio']:.3f} (required {result['required_ratio']}): {'ok' if result['ok'] else 'NOT MET'}",
        ]
    )


if __name__ == "__main__":
    main()
