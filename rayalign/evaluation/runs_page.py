"""`write_runs_page`: several runs' folders -> one self-contained page that compares them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rayalign.evaluation import report_numbers
from rayalign.evaluation.charts import Curve, overlay_chart
from rayalign.evaluation.formatting import MISSING, duration
from rayalign.evaluation.history import wall_seconds
from rayalign.evaluation.pages import MAX_SERIES, render_page, write_page
from rayalign.evaluation.report import RunFiles, measured, read_run
from rayalign.evaluation.report_curves import NARROW, WIDE, curve_of
from rayalign.evaluation.report_run import pair_counts
from rayalign.evaluation.runs_pictures import runs_cards
from rayalign.records import KEPT

CURVES = {"reward": "Training reward", "heldout/reward": "Reward of held-out prompts while training"}
OF_ITS_OWN = ("name", "output")  # settings in which any two runs differ, and that say nothing
NO_CURVE = Curve([], [])


def write_runs_page(folders: Sequence[str | Path], output: str | Path) -> Path:
    """Writes the page to `output` and returns its path.

    A run that still goes, or lacks a piece, is there with what it has, and the page says what it lacks.
    Raises FileNotFoundError where a folder is not there, ValueError of more than `MAX_SERIES` runs.
    """
    if len(folders) > MAX_SERIES:
        raise ValueError(f"{len(folders)} runs: a page compares {MAX_SERIES} at most")
    runs = [read_run(folder) for folder in folders]
    names = _distinct([run.summary.get("name") or run.config.get("name") or run.folder.name for run in runs])
    return write_page(Path(output), render_page("runs.html", _context(dict(zip(names, runs, strict=True)))))


def _context(runs: dict[str, RunFiles]) -> dict[str, Any]:
    rows = [_row(name, run) for name, run in runs.items()]
    return {
        "rows": rows,
        "charts": _charts(runs),
        "settings": differing({name: run.config for name, run in runs.items()}),
        "names": list(runs),
        "pairs": runs_cards({name: run.images for name, run in runs.items()}, _one_model(runs)),
        "notes": [f"{name}: {note}" for name, run in runs.items() for note in run.notes],
    }


def _row(name: str, run: RunFiles) -> dict[str, Any]:
    rewards = report_numbers.rewards(run.config, run.summary)
    comparison, _ = measured(run, rewards)
    scores = report_numbers.score_rows(comparison, rewards)
    wall = wall_seconds(run.summary, run.history)
    done = run.summary.get("num_iterations", len(run.history))
    planned = run.config.get("iterations", done)
    pairs = pair_counts(run.summary, run.history).get(KEPT)
    return {
        "name": name,
        "method": report_numbers.method(run.config, run.summary),
        "guiding": [score for score in scores if score["guiding"]],
        "heldout": [score for score in scores if not score["guiding"]],
        "iterations": f"{done}" if done >= planned else f"{done} of {planned}",
        "pairs": f"{pairs:,}" if pairs is not None else MISSING,
        "wall": duration(wall),
    }


def _charts(runs: dict[str, RunFiles]) -> list[dict[str, Any]]:
    """Each of `CURVES` of the runs that have it, apart for different rewards: their units differ."""
    groups: dict[str, list[str]] = {}
    for name, run in runs.items():
        groups.setdefault(_reward_of(run), []).append(name)
    charts = []
    for metric, title in CURVES.items():
        for reward, members in groups.items():
            # Of every run, so that it has one colour on the whole page.
            found = {name: curve_of(run.history, metric) if name in members else None for name, run in runs.items()}
            if not any(found.values()):
                continue
            curves = {name: curve or NO_CURVE for name, curve in found.items()}
            legend = [(i, name) for i, (name, curve) in enumerate(found.items()) if curve]
            svgs = [overlay_chart(curves, f"{title}, {reward}", width, 260) for width in (WIDE, NARROW)]
            charts.append({"title": title, "note": reward, "wide": svgs[0], "narrow": svgs[1], "legend": legend})
    return charts


def _reward_of(run: RunFiles) -> str:
    """ "jpeg", or "0.7 clip + 0.3 jpeg (standardised)"."""
    rewards = report_numbers.rewards(run.config, run.summary)
    if len(rewards) == 1 and rewards[0].get("weight", 1.0) == 1.0 and rewards[0].get("scale", "raw") == "raw":
        return str(rewards[0].get("scorer"))
    terms = []
    for one in rewards:
        scale = one.get("scale", "raw")
        terms.append(f"{one.get('weight', 1.0):g} {one.get('scorer')}{f' ({scale})' if scale != 'raw' else ''}")
    return " + ".join(terms) or "reward"


def differing(configs: dict[str, dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """(dotted name, each run's value) of settings that not all runs share; a dash where a run has none
    such.
    """
    leaves = {name: dict(_leaves(config)) for name, config in configs.items()}
    names = dict.fromkeys(setting for found in leaves.values() for setting in found)
    rows = [(setting, [found.get(setting, MISSING) for found in leaves.values()]) for setting in names]
    return [(setting, values) for setting, values in rows if len(set(values)) > 1 and setting not in OF_ITS_OWN]


def _leaves(tree: dict[str, Any], above: str = "") -> list[tuple[str, str]]:
    found = []
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            found += _leaves(value, f"{above}{name}.")
        elif name == "rewards" and isinstance(value, list) and not above:
            found += [leaf for i, one in enumerate(value) for leaf in _leaves(one, f"rewards.{i}.")]
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            found.append((f"{above}{name}", "not set" if value is None else text))
    return found


def _one_model(runs: dict[str, RunFiles]) -> bool:
    models = {run.summary.get("model") or (run.config.get("model") or {}).get("path") for run in runs.values()}
    return len(models) == 1


def _distinct(names: list[str]) -> list[str]:
    """Names that occur twice get a number: a legend must tell runs apart."""
    return [name if names.count(name) == 1 else f"{name} ({i + 1})" for i, name in enumerate(names)]
