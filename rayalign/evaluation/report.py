"""`write_report`: a run's folder -> one self-contained page, whatever the run has left so far.

Everything is inside the file: styles, curves, pictures (`pages` fills it in).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rayalign.evaluation import report_curves, report_numbers, report_run
from rayalign.evaluation.callouts import warnings
from rayalign.evaluation.comparison import compare, overoptimised
from rayalign.evaluation.drift import drift
from rayalign.evaluation.history import HISTORY, read_history
from rayalign.evaluation.image_set import INDEX, ImageSet
from rayalign.evaluation.pages import render_page, write_page
from rayalign.evaluation.report_pictures import pair_cards
from rayalign.evaluation.report_timesteps import timestep_charts
from rayalign.evaluation.wrong import what_went_wrong
from rayalign.records import IterationRecord
from rayalign.redaction import redacted

REPORT = "report.html"


@dataclass
class RunFiles:
    """What a run's folder holds. Pieces that are not there yet are empty, and `notes` says which."""

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)
    config_text: str = ""
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[IterationRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def images(self) -> dict[str, Path]:
        """ "before" and "after" -> folder, where the pictures are complete."""
        folders = {name: self.folder / "images" / name for name in ("before", "after")}
        return {name: folder for name, folder in folders.items() if (folder / INDEX).exists()}


def write_report(run_folder: str | Path, output: str | Path | None = None) -> Path:
    """Writes the page to `output` (`report.html` in the run's folder where None) and returns its path.

    Reads config.yaml, summary.json, history.jsonl, images/before and images/after. A piece that is missing
    leaves its section out and a note in its place, so a run that still goes has a report too.
    Raises FileNotFoundError where the folder itself is not there.
    """
    files = read_run(run_folder)
    return write_page(Path(output or files.folder / REPORT), render_page("report.html", _context(files)))


def read_run(run_folder: str | Path) -> RunFiles:
    """The folder's pieces. One that can't be read is missing: it must not cost the rest of the page."""
    folder = Path(run_folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no run folder at {folder}")
    files = RunFiles(folder)
    try:
        files.config_text = (folder / "config.yaml").read_text("utf-8")
        files.config = _redacted(_mapping(yaml.safe_load(files.config_text)))
        files.config_text = redacted(files.config_text)
    except (OSError, ValueError, yaml.YAMLError):
        files.notes.append("config.yaml is missing or damaged: settings are left out.")
    try:
        files.summary = _redacted(_mapping(json.loads((folder / "summary.json").read_text("utf-8"))))
    except (OSError, ValueError):
        files.notes.append("No summary yet: the run has not finished. Numbers come from its history so far.")
    try:
        files.history = read_history(folder)
    except (ValueError, KeyError, TypeError):
        files.notes.append(f"{HISTORY} is damaged: curves are left out.")
    missing = [name for name in ("before", "after") if name not in files.images]
    if missing:
        files.notes.append(f"No pictures from {' and '.join(missing)} tuning yet.")
    return files


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected names and values, got a {type(value).__name__}")
    return value


def _redacted(value: Any) -> Any:
    """Our own files hold no secret; those of an older run, or of another program, may."""
    if isinstance(value, dict):
        return {name: _redacted(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_redacted(item) for item in value]
    return redacted(value) if isinstance(value, str) else value


def _context(files: RunFiles) -> dict[str, Any]:
    config, summary, history = files.config, files.summary, files.history
    rewards = report_numbers.rewards(config, summary)
    comparison, shift = measured(files, rewards)
    rows = report_numbers.score_rows(comparison, rewards)
    return {
        "name": summary.get("name") or config.get("name") or files.folder.name,
        "subtitle": report_numbers.subtitle(config, summary, history),
        "notes": files.notes,
        "warnings": summary.get("warnings") or warnings(history),
        "wrong": what_went_wrong(summary, history),
        "rows": rows,
        "heroes": [row for row in rows if row["guiding"]],
        "suspects": overoptimised(comparison),
        "standardised": ", ".join(one["scorer"] for one in rewards if one.get("scale") == "standardised"),
        "facts": report_numbers.facts(summary, history),
        "reward_charts": report_curves.reward_charts(history),
        "probe": report_curves.probe_curves(history),
        "curves": report_curves.curves(history),
        "timesteps": timestep_charts(history),
        "pairs": pair_cards(files.images.get("before"), files.images.get("after")),
        "drift": report_numbers.drift_rows(shift),
        "time": report_run.time_shares(summary, history),
        "timeline": report_run.timeline(summary, history),
        "calls": report_run.denoiser_calls(summary),
        "drops": report_run.drops(summary, history),
        "config_text": files.config_text,
        "versions": report_run.versions(summary),
        "command": summary.get("command") or "",
        "snippet": report_run.load_snippet(config, summary),
    }


def measured(files: RunFiles, rewards: list[dict[str, Any]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Comparison and drift from the summary; computed here where it has none but the pictures are there."""
    comparison, shift = files.summary.get("reward") or {}, files.summary.get("drift") or {}
    if (comparison and shift) or len(files.images) < 2:
        return comparison, shift
    before, after = (ImageSet.load(files.images[name]) for name in ("before", "after"))
    if before.prompts != after.prompts or before.seeds != after.seeds:
        files.notes.append("Pictures before and after tuning show different prompts or seeds: not compared.")
        return comparison, shift
    common = [name for name in before.scores if name in after.scores]
    tuned_on = {reward["scorer"] for reward in rewards}
    guiding, heldout = ([name for name in common if (name in tuned_on) is wanted] for wanted in (True, False))
    return comparison or compare(before, after, guiding, heldout), shift or drift(before, after)
