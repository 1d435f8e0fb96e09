"""A style alignment whole, on the stub: one set, a run for each method, one table, and what a second call leaves."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from rayalign.config.style import StyleConfig
from rayalign.data.preferences import num_rows, read_rows
from rayalign.data.source import open_pairs
from rayalign.data.style import stylise
from rayalign.errors import ConfigError, RunStopped
from rayalign.evaluation.image_set import ImageSet
from rayalign.pipeline.style import run_style

SMALL = {"rollout": {"cpus": 0.5}, "scorer": {"cpus": 0.1}, "train": {"cpus": 0.5}, "annotate": {"cpus": 0.1}}


def job(folder: Path, **changes: Any) -> StyleConfig:
    tree: dict[str, Any] = {
        "name": "styled",
        "output": str(folder),
        "iterations": 2,
        "model": {"path": "stub"},
        "rewards": [{"scorer": "stub"}],
        "sampler": {"num_steps": 4},
        "style": {"kind": "drawn", "name": "hatching"},
        "methods": ["sft", "rpo"],
        "num_pairs": 6,
        "objective": {"embedder": "toy-clip"},
        "features": {"extractor": "toy-clip"},
        "rollout": {"samples_per_ticket": 2, "tickets_per_iteration": 2},
        "train": {"lr": 1e-2},
        "placement": SMALL,
        "evaluation": {"num_prompts": 3, "seeds_per_prompt": 2},
        "stall_timeout_s": 600,
    }
    return StyleConfig.model_validate(tree | changes)


def pixels(data: bytes | None) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data or b"")))


def changed_at(folder: Path) -> dict[str, int]:
    names = ("pairs.parquet", "images/target/scores.json", "sft/summary.json", "rpo/images/after/scores.json")
    return {name: (folder / name).stat().st_mtime_ns for name in names}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_from_pictures_to_table(ray_cluster: None, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = job(tmp_path)
    report = run_style(config)

    index = open_pairs(config.pairs.path)
    rows = read_rows(index, range(num_rows(index)))
    base = ImageSet.load(config.folder / "images" / "base")
    assert len(rows) == 6
    assert not {row.prompt for row in rows} & set(base.prompts)
    for row in rows:
        np.testing.assert_array_equal(pixels(row.winner), stylise(pixels(row.loser)[None], "hatching")[0])
    target = ImageSet.load(config.folder / "images" / "target")
    np.testing.assert_array_equal(target.images, stylise(base.images, "hatching"))

    assert [row["name"] for row in report["rows"]] == ["base", "target", "SFT", "RPO"]
    assert all(row["kid"] is not None for row in report["rows"] if row["name"] != "target")
    assert {row["scores"]["stub"]["n"] for row in report["rows"]} == {6}
    assert json.loads((config.folder / "style.json").read_text())["rows"] == report["rows"]
    table = (config.folder / "style.md").read_text()
    assert table.strip() in capfd.readouterr().out
    assert Image.open(config.folder / "style.png").width == 4 * (128 + 8) + 8
    for method in config.methods:
        summary = json.loads((config.folder / method / "summary.json").read_text())
        assert (summary["method"]["objective"], summary["num_pairs"]["kept"]) == (method, 8)
        before = ImageSet.load(config.folder / method / "images" / "before")
        np.testing.assert_array_equal(before.images, base.images)

    # What is whole stays, another table is made of it.
    first = changed_at(config.folder)
    again = run_style(config)
    assert changed_at(config.folder) == first
    assert again["rows"] == report["rows"]
    # Its own settings repeat it under another name; another style under its name does not.
    stored = yaml.safe_load((config.folder / "config.yaml").read_text())
    assert StyleConfig.model_validate(stored | {"name": "other"}).num_pairs == 6
    with pytest.raises(ConfigError, match=r"holds the pictures of other settings \(style\..*hatching.*outlines"):
        run_style(job(tmp_path, style={"kind": "drawn", "name": "outlines"}))


def test_pictures_go_out_to_be_restyled_and_come_back(ray_cluster: None, tmp_path: Path) -> None:
    """The folder as it was exported is a style that changes nothing, which is no style."""
    place = str(tmp_path / "elsewhere")
    changes: dict[str, Any] = {"num_pairs": 2, "evaluation": {"num_prompts": 1, "seeds_per_prompt": 1}}
    assert run_style(job(tmp_path, style={"kind": "folder", "path": place, "export": True}, **changes)) == {}
    files = sorted(str(file.relative_to(place)) for file in Path(place).rglob("*.png"))
    assert [file[:16] for file in files] == ["heldout/000000-c", "training/000000-", "training/000001-"]
    with pytest.raises(RunStopped, match="the style changes no picture"):
        run_style(job(tmp_path, style={"kind": "folder", "path": place}, **changes))
    assert not (tmp_path / "styled" / "pairs.parquet").exists()
