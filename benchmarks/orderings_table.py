"""What orderings.py prints and draws: each method's gain with its interval, beside the order its paper reports."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from orderings_methods import PAPERS
from output import table

from rayalign.evaluation.intervals import change, mean_interval, win_rate

Run = dict[str, Any]


def print_tables(results: list[Run]) -> None:
    """A table for each group and reward."""
    groups: defaultdict[str, defaultdict[str, list[Run]]] = defaultdict(lambda: defaultdict(list))
    for run in sorted(results, key=lambda run: run["seed"]):
        groups[f"{run['group']}/{run['reward']}"][run["method"]].append(run)
    for name, methods in groups.items():
        print(f"\n{name}: mean over seeds [95% interval over prompts and seeds]")
        rows = {method: _row(method, runs, name) for method, runs in methods.items()}
        gains = {method: gain for method, (_, gain) in rows.items()}
        best_first = sorted(gains, key=lambda method: gains[method], reverse=True)
        print(table(_header(name), [[*rows[method][0], gains[method]] for method in best_first]))
        _compare(name, gains)


def _header(name: str) -> list[str]:
    measured = ["KID before", "KID after"] if name.startswith("style") else []
    return ["method", "before", "after", "change", "win rate", "each seed", *measured, "gain"]


def _row(method: str, runs: list[Run], name: str) -> tuple[list[object], float]:
    """Cells, and what the order goes by: the reward's change, or for a style the fall in KID."""
    reward = name.partition("/")[2]
    before, after = (np.concatenate([run[when][reward] for run in runs]) for when in ("before", "after"))
    # A prompt with each seed is a unit of its own: the seeds trained different models.
    units = [f"{run['seed']} {prompt}" for run in runs for prompt in run["prompts"]]
    seeds = [float(np.mean(run["after"][reward]) - np.mean(run["before"][reward])) for run in runs]
    cells: list[object] = [
        method,
        f"{mean_interval(before, units).mean:.3f}",
        _interval(mean_interval(after, units)),
        _interval(change(before, after, units)),
        f"{100 * (win_rate(before, after, units).mean or 0):.0f}%",
        " ".join(f"{value:+.3f}" for value in seeds),
    ]
    if not name.startswith("style"):
        return cells, float(np.mean(seeds))
    kid = {when: float(np.mean([run["style"][when]["kid"]["mean"] for run in runs])) for when in ("before", "after")}
    return [*cells, kid["before"], kid["after"]], kid["before"] - kid["after"]


def _interval(found: Any) -> str:
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _compare(name: str, gains: dict[str, float]) -> None:
    """Pairs of methods whose order differs from the paper's."""
    if name not in PAPERS:
        return
    paper, order = PAPERS[name]
    known = [method for method in order if method in gains]
    print(f"paper, low to high ({paper}): {' < '.join(known)}")
    wrong = [
        f"{low} over {high}"
        for place, low in enumerate(known)
        for high in known[place + 1 :]
        if gains[low] > gains[high]
    ]
    print(f"otherwise here: {', '.join(wrong)}" if wrong else "the same order here")


def picture(results: list[Run], path: Path) -> None:
    """Curves over iterations, a panel for each group and reward: training reward, or accuracy where there is none."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = sorted({f"{run['group']}/{run['reward']}" for run in results})
    across = min(len(names), 2)
    down = -(-len(names) // across)
    figure, axes = pyplot.subplots(down, across, figsize=(6 * across, 4 * down), squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        runs = [run for run in results if f"{run['group']}/{run['reward']}" == name]
        key = next((key for key in ("reward", "accuracy", "loss") if key in runs[0]["history"][0]), "loss")
        for method in dict.fromkeys(run["method"] for run in runs):
            curves = np.array(
                [[point.get(key, np.nan) for point in run["history"]] for run in runs if run["method"] == method]
            )
            middle = curves.mean(0)
            axis.plot(middle, label=method)
            axis.fill_between(range(len(middle)), curves.min(0), curves.max(0), alpha=0.15)
        axis.set_title(name)
        axis.set_xlabel("iteration")
        axis.set_ylabel(f"training {key}: mean, range over seeds")
        axis.legend(fontsize=8)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=90)
