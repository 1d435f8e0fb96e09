"""An evaluation's report as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rayalign.evaluation.drift import MEANING
from rayalign.evaluation.formatting import interval, number, percent

Report = Mapping[str, Any]


def model_table(report: Report) -> str:
    """Scores, categories, drift and distances, each a table; what is not there is left out."""
    parts = [f"# {report['name']}", _what(report), _scores(report), _categories(report), _drift(report)]
    return "\n\n".join(part for part in [*parts, _distances(report)] if part) + "\n"


def _what(report: Report) -> str:
    return (
        f"{report['num_prompts']} prompts ({report['prompts']}) x {report['seeds_per_prompt']} seeds from "
        f"{report['first_seed']}, the same for every model. Base: `{report['base']['path']}`. "
        f"95% intervals by bootstrap over prompts; win rate and p (Wilcoxon, over prompts) are paired; a tie is half a "
        f"win."
    )


def _scores(report: Report) -> str:
    lines = [
        "| scorer | role | model | mean | median | change | win rate | ties | p | unit |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for scorer, base in report["base"]["scores"].items():
        role = "guiding" if base["guiding"] else "held out"
        mean, median = _interval(base["mean"]), number(base["median"])
        lines.append(f"| {scorer} | {role} | base | {mean} | {median} | | | | | {base['unit']} |")
        for label, model in report["models"].items():
            lines.append(f"| | | {label} | {_entry(model['scores'][scorer])} | |")
    failed = [
        f"{label}, {scorer}: {entry['failed']} pairs left out, since a score failed"
        for label, model in report["models"].items()
        for scorer, entry in model["scores"].items()
        if entry["failed"]
    ]
    return "\n".join([*lines, *([""] if failed else []), *failed])


def _entry(entry: Report) -> str:
    wins = " ".join(percent(entry["win_rate"])).strip()
    ties = "" if entry["ties"] is None else f"{entry['ties']:.0%}"
    p = "" if entry["p_value"] is None else f"{entry['p_value']:.2g}"
    change = " ".join(interval(entry["change"], sign=True)).strip()
    return f"{_interval(entry['mean'])} | {number(entry['median'])} | {change} | {wins} | {ties} | {p}"


def _interval(value: Report) -> str:
    return " ".join(interval(value)).strip()


def _categories(report: Report) -> str:
    lines = []
    for label, model in report["models"].items():
        for category, entries in model["categories"].items():
            for scorer, entry in entries.items():
                change = " ".join(interval(entry["change"], sign=True)).strip()
                wins = " ".join(percent(entry["win_rate"])).strip()
                lines.append(f"| {label} | {category} | {scorer} | {change} | {wins} |")
    head = ["## By category", "", "| model | category | scorer | change | win rate |", "|---|---|---|---|---|"]
    return "\n".join([*head, *lines]) if lines else ""


def _drift(report: Report) -> str:
    lines = ["## What changed beside", "", "| model | statistic | base | model | change | what it is |"]
    lines.append("|---|---|---|---|---|---|")
    for label, model in report["models"].items():
        for name, meaning in MEANING.items():
            cells = [_interval(model["drift"][side][name]) for side in ("before", "after")]
            change = " ".join(interval(model["drift"]["change"][name], sign=True)).strip()
            lines.append(f"| {label} | {name} | {cells[0]} | {cells[1]} | {change} | {meaning} |")
        if model.get("clip_distance"):
            away = _interval(model["clip_distance"])
            lines.append(
                f"| {label} | CLIP distance | | {away} | | 1 - cosine to the base's picture of the same seed |"
            )
    return "\n".join(lines)


def _distances(report: Report) -> str:
    distances = report.get("distances") or {}
    if not distances:
        return ""
    lines = [
        "## Distance to the reference pictures",
        "",
        "| model | FID | KID | features | note |",
        "|---|---|---|---|---|",
    ]
    for label, entry in distances.items():
        fid = "" if entry["fid"] is None else f"{entry['fid']:.2f}"
        kid = "" if entry["kid"] is None else f"{entry['kid']['mean']:.4f} ± {entry['kid']['std']:.4f}"
        lines.append(f"| {label} | {fid} | {kid} | {entry['extractor']} | {entry['fid_note']} |")
    return "\n".join(lines)
