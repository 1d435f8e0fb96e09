from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rayalign.evaluation.runs_page import differing, write_runs_page
from tests.evaluation.test_report import Page
from tests.evaluation.test_report_browser import GAINS, make_run


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    first = make_run(tmp_path / "first", GAINS)
    return [first, make_run(tmp_path / "second", [-gain for gain in GAINS], lr=0.25, beta=5.0)]


def read(runs: list[Path], tmp_path: Path) -> tuple[str, Page]:
    html = write_runs_page(runs, tmp_path / "page.html").read_text()
    return html, Page(html)


def test_results_settings_and_pictures_stand_side_by_side(runs: list[Path], tmp_path: Path) -> None:
    html, page = read(runs, tmp_path)
    assert "2 runs compared first, second" in page.text
    assert page.text.count("DPO on stepwise pairs") == 2
    assert page.text.count("8 iterations 240 pairs 1 min 20 s") == 2
    assert "+0.4" in page.text  # the mean of GAINS is 2.25 / 6
    assert "−0.4" in page.text
    assert "Setting first second objective.beta 0.1 5.0 train.lr 0.001 0.25 The same" in page.text
    assert "config" not in page.text
    images = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert images[:3] == ["a cat, number 0 (before)", "a cat, number 0 (first)", "a cat, number 0 (second)"]
    assert len(images) == 6 * 3
    changes = [json.loads(attributes["data-changes"]) for tag, attributes in page.tags if tag == "figure"]
    assert changes[1]["first\njpeg"] == -changes[1]["second\njpeg"] == GAINS[1]
    assert "https://" not in html
    assert len(html) < 8_000_000


def test_a_run_that_still_goes_is_there_with_what_it_has(runs: list[Path], tmp_path: Path) -> None:
    (runs[1] / "summary.json").unlink()
    (runs[1] / "images" / "after" / "scores.json").unlink()
    _, page = read(runs, tmp_path)
    assert "second: No summary yet" in page.text
    assert "second: No pictures from after tuning yet" in page.text
    alts = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert alts[:2] == ["a cat, number 0 (before)", "a cat, number 0 (first)"]


def test_different_rewards_are_drawn_apart(runs: list[Path], tmp_path: Path) -> None:
    one, _ = read(runs, tmp_path)
    summary = json.loads((runs[1] / "summary.json").read_text())
    summary["rewards"] = [{"scorer": "clip", "weight": 0.5}, {"scorer": "jpeg", "weight": 2, "scale": "standardised"}]
    (runs[1] / "summary.json").write_text(json.dumps(summary))
    two, page = read(runs, tmp_path)
    assert one.count("<h2>Training reward</h2>") == 1
    assert two.count("<h2>Training reward</h2>") == 2
    assert "0.5 clip + 2 jpeg (standardised)" in page.text


def test_pictures_of_different_models_have_no_common_before(runs: list[Path], tmp_path: Path) -> None:
    summary = json.loads((runs[1] / "summary.json").read_text())
    (runs[1] / "summary.json").write_text(json.dumps(summary | {"model": "toy-sd3"}))
    _, page = read(runs, tmp_path)
    alts = [attributes["alt"] for tag, attributes in page.tags if tag == "img"]
    assert alts[:2] == ["a cat, number 0 (first)", "a cat, number 0 (second)"]
    assert not [tag for tag, _ in page.tags if tag == "select"]


def test_runs_of_one_name_are_told_apart(runs: list[Path], tmp_path: Path) -> None:
    summary = json.loads((runs[1] / "summary.json").read_text())
    (runs[1] / "summary.json").write_text(json.dumps(summary | {"name": "first"}))
    assert "first (1), first (2)" in read(runs, tmp_path)[1].text


def test_names_are_escaped(runs: list[Path], tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\" onload=\"alert(1)"
    summary = json.loads((runs[1] / "summary.json").read_text())
    (runs[1] / "summary.json").write_text(json.dumps(summary | {"name": evil}))
    html, page = read(runs, tmp_path)
    assert evil in page.text
    assert "<script>alert" not in html
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_only_what_differs_is_listed() -> None:
    configs: dict[str, dict[str, Any]] = {
        "a": {"name": "a", "pairs": {"kind": "stepwise", "tuned_steps": [4, 2]}, "rewards": [{"scorer": "x"}]},
        "b": {"name": "b", "pairs": {"kind": "final", "num": 2}, "rewards": [{"scorer": "y"}]},
    }
    assert differing(configs) == [
        ("pairs.kind", ["stepwise", "final"]),
        ("pairs.tuned_steps", ["4, 2", "–"]),
        ("rewards.0.scorer", ["x", "y"]),
        ("pairs.num", ["–", "2"]),
    ]


def test_more_runs_than_colours_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="25 runs: a page compares 24"):
        write_runs_page([tmp_path] * 25, tmp_path / "x.html")
