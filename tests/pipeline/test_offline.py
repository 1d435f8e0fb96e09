"""A preference set on disk through the whole pipeline: encoder pool, pair stream, trainer."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rayalign.config import RunConfig
from rayalign.errors import ConfigError, RunStopped
from rayalign.evaluation.history import read_history
from rayalign.pipeline.run import run

pytestmark = pytest.mark.usefixtures("ray_cluster")

BRIGHT, DARK = (230, 230, 230), (20, 20, 20)


def jpeg(colour: tuple[int, int, int]) -> bytes:
    with io.BytesIO() as file:
        Image.new("RGB", (70, 64), colour).save(file, format="JPEG")
        return file.getvalue()


def write_set(path: Path, num_rows: int, ties: int, broken: int, uncaptioned: int) -> None:
    """Pick-a-Pic's columns. The brighter image is preferred, at either place; bad rows come first, then good ones."""
    rows: list[dict[str, Any]] = []
    for number in range(num_rows):
        first_wins = number % 2 == 0
        images = [jpeg(BRIGHT), jpeg(DARK)] if first_wins else [jpeg(DARK), jpeg(BRIGHT)]
        row = {"caption": f"picture {number % 7}", "jpg_0": images[0], "jpg_1": images[1]}
        row |= {"label_0": float(first_wins), "label_1": float(not first_wins), "has_label": True}
        if number < ties:
            row |= {"label_0": 0.5, "label_1": 0.5}
        elif number < ties + broken:
            row["jpg_1"] = row["jpg_1"][: len(row["jpg_1"]) // 2]
        elif number < ties + broken + uncaptioned:
            row["caption"] = None
        rows.append(row)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=10)


def settings(folder: Path, **changes: Any) -> RunConfig:
    tree: dict[str, Any] = {
        "output": str(folder),
        "iterations": 2,
        "model": {"path": "stub"},
        "rewards": [{"scorer": "stub"}],
        "sampler": {"num_steps": 6, "guidance_scale": 1.0},
        "pairs": {"kind": "dataset", "path": str(folder / "set.parquet"), "max_broken_share": 0.3},
        "objective": {"kind": "dpo", "beta": 100.0},
        "rollout": {"samples_per_ticket": 5, "tickets_per_iteration": 4},
        "train": {"lr": 1e-2, "micro_batch": 4},
        "placement": {"rollout": {"cpus": 0.5, "max": 2}, "scorer": {"cpus": 0.1}, "train": {"cpus": 0.5}},
        "evaluation": {"num_prompts": 2, "seeds_per_prompt": 1},
        "stall_timeout_s": 300,
        "max_failures": 0,
    }
    return RunConfig.model_validate(tree | changes)


def test_ties_and_broken_rows_are_counted_by_reason_and_the_run_goes_on(tmp_path: Path) -> None:
    write_set(tmp_path / "set.parquet", 20, ties=3, broken=2, uncaptioned=1)
    cache = str(tmp_path / "latents")
    config = settings(tmp_path)
    config = RunConfig.model_validate(config.model_dump() | {"pairs": config.pairs.model_dump() | {"cache": cache}})
    summary = run(config)
    # Each of the two iterations is one epoch of the 20 rows.
    counts = {status: count for status, count in summary["num_pairs"].items() if count}
    assert counts == {"kept": 28, "tie": 6, "broken_image": 4, "broken_caption": 2}
    assert summary["denoiser_calls_per_pair_trained"] == {"policy": 2.0, "reference": 2.0}
    assert summary["lag_max"] == 0
    history = read_history(config.folder)
    assert history[-1].metrics["accuracy"] > 0.6 > history[0].metrics["accuracy"] - 0.1
    assert len(list(Path(cache).rglob("group-*.parquet"))) == 2
    # Without the cache the same latents are made on the way, so the same losses come out.
    again = run(RunConfig.model_validate(settings(tmp_path).model_dump() | {"name": "uncached"}))
    assert again["num_pairs"] == summary["num_pairs"]
    other = read_history(tmp_path / "uncached")
    np.testing.assert_allclose([r.metrics["loss"] for r in other], [r.metrics["loss"] for r in history], rtol=1e-6)


def test_too_many_broken_rows_stop_the_run(tmp_path: Path) -> None:
    write_set(tmp_path / "set.parquet", 20, ties=0, broken=6, uncaptioned=1)
    with pytest.raises(RunStopped, match=r"7 of 20 pairs were broken \(35%, allowed 30%\)"):
        run(settings(tmp_path))


def test_a_path_that_holds_no_pairs_is_refused_before_any_actor_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist") as caught:
        run(settings(tmp_path))
    assert caught.value.field == "pairs.path"
