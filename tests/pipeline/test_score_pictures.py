"""Scoring pictures through Ray Data: the values, what fails, and a pass that is killed and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rayalign.config.score import ScoreConfig
from rayalign.errors import ConfigError, RunStopped
from rayalign.pipeline.score_pictures import score_images
from rayalign.rewards.clip import toy_clip
from rayalign.rewards.jpeg import JpegScorer
from rayalign.toy import shapes

pytestmark = pytest.mark.usefixtures("ray_cluster")
ROOT = Path(__file__).resolve().parents[2]
PROMPTS = shapes.heldout_prompts()[:14]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """14 noisy pictures of three sizes with prompts, one without, and one that is none."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    for number, prompt in enumerate(PROMPTS):
        side = (32, 40, 48)[number % 3]
        Image.fromarray(generator.integers(0, 256, (side, 32, 3), dtype=np.uint8)).save(folder / f"{number:02d}.png")
        (folder / f"{number:02d}.txt").write_text(prompt)
    Image.new("RGB", (32, 32), "red").save(folder / "no-prompt.png")
    (folder / "torn.png").write_bytes((folder / "00.png").read_bytes()[:500])
    return folder


def settings(images: Path, output: Path, **changes: Any) -> ScoreConfig:
    tree: dict[str, Any] = {
        "images": str(images),
        "output": str(output),
        "scorers": [{"scorer": "jpeg"}, {"scorer": "toy-clip"}],
        "rows_per_file": 4,
        "batch": 3,
        "pool": {"cpus": 0.25},
    }
    return ScoreConfig.model_validate(tree | changes)


def scores(output: Path) -> pa.Table:
    return pq.read_table(output / "scores")


def array(image: Path) -> np.ndarray:
    return np.ascontiguousarray((np.asarray(Image.open(image), dtype=np.float32) / 255).transpose(2, 0, 1)[None])


@pytest.fixture(scope="module")
def undisturbed(pictures: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    output = tmp_path_factory.mktemp("out") / "scores"
    score_images(settings(pictures, output))
    return output


def test_scores_are_those_of_the_scorers_alone(pictures: Path, undisturbed: Path) -> None:
    rows = {row["id"]: row for row in scores(undisturbed).to_pylist()}
    jpeg, clip = JpegScorer(), toy_clip()
    for number, prompt in enumerate(PROMPTS):
        row, image = rows[f"{number:02d}.png"], array(pictures / f"{number:02d}.png")
        assert (row["prompt"], row["reason"]) == (prompt, None)
        assert row["jpeg"] == jpeg.score(image, [""])[0]
        assert row["toy-clip"] == clip.score(image, [prompt])[0]


def test_what_has_no_score_has_a_reason_and_is_counted(undisturbed: Path) -> None:
    table = scores(undisturbed)
    assert table["id"].to_pylist() == sorted(table["id"].to_pylist())
    rows = {row["id"]: row for row in table.to_pylist()}
    assert len(rows) == 16
    assert rows["no-prompt.png"]["toy-clip"] is None
    assert rows["no-prompt.png"]["reason"] == "toy-clip: no prompt"
    assert rows["no-prompt.png"]["jpeg"] < 0  # the other scorer needs none
    assert (rows["torn.png"]["jpeg"], rows["torn.png"]["toy-clip"]) == (None, None)
    assert rows["torn.png"]["reason"].startswith("image: ")
    summary = json.loads((undisturbed / "summary.json").read_text())
    assert (summary["num_images"], summary["num_unreadable"]) == (16, 1)
    assert {name: (row["scored"], row["failed"]) for name, row in summary["scorers"].items()} == {
        "jpeg": (15, 0),
        "toy-clip": (14, 1),
    }


def test_killed_half_way_it_goes_on_to_the_same_result(
    pictures: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    output = tmp_path / "again"
    (tmp_path / "slow.yaml").write_text(json.dumps(settings(pictures, output).model_dump(mode="json")))
    command = [sys.executable, "-m", "rayalign.commands.main", "score", "--config", str(tmp_path / "slow.yaml")]
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    process = subprocess.Popen(
        command, env=plain | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 240
    while not any(output.glob("scores/part-*.parquet")) and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    found = len(list(output.glob("scores/part-*.parquet")))
    assert found > 0
    if found == 4:  # it was quicker than the signal: as if the kill had come before the last file
        (output / "scores" / "part-00003.parquet").unlink()
    before = {file.name: file.stat().st_mtime_ns for file in output.glob("scores/part-*.parquet")}
    capsys.readouterr()
    score_images(settings(pictures, output))
    assert f"{4 * len(before)} are scored already; going on with" in capsys.readouterr().out
    assert scores(output).equals(scores(undisturbed))
    # What was there was not scored again.
    assert before.items() <= {file.name: file.stat().st_mtime_ns for file in output.glob("scores/*.parquet")}.items()
    assert (output / "summary.json").read_bytes() == (undisturbed / "summary.json").read_bytes()


def test_parquet_of_several_row_groups(pictures: Path, undisturbed: Path, tmp_path: Path) -> None:
    rows = [{"image": {"bytes": (pictures / f"{n:02d}.png").read_bytes()}, "caption": PROMPTS[n]} for n in range(7)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set.parquet", row_group_size=3)
    score_images(settings(tmp_path / "set.parquet", tmp_path / "out", pool={"cpus": 0.25, "max": 2}))
    table = scores(tmp_path / "out")
    assert table["id"].to_pylist() == [f"set.parquet:{number}" for number in range(7)]
    assert table.select(["jpeg", "toy-clip"]).equals(scores(undisturbed).slice(0, 7).select(["jpeg", "toy-clip"]))


def test_a_changed_picture_or_scorer_is_refused(pictures: Path, undisturbed: Path, tmp_path: Path) -> None:
    changed = [{"scorer": "jpeg", "options": {"quality": 50}}, {"scorer": "toy-clip"}]
    with pytest.raises(ConfigError, match=r"other settings \(scorers .*quality.* 50"):
        score_images(settings(pictures, undisturbed, scorers=changed))
    touched = pictures / "03.png"
    stat = touched.stat()
    os.utime(touched, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    try:
        with pytest.raises(ConfigError, match=r"1 changed, such as 03\.png"):
            score_images(settings(pictures, undisturbed))
    finally:
        os.utime(touched, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_scorer_that_cannot_start_ends_it_in_plain_words(pictures: Path, tmp_path: Path) -> None:
    broken = [{"scorer": "jpeg"}, {"scorer": "stub", "options": {"fail": "construct"}}]
    with pytest.raises(RunStopped, match="scorer stub did not start: RuntimeError: the stub was asked"):
        score_images(settings(pictures, tmp_path / "out", scorers=broken))


def test_pools_that_do_not_fit_are_refused(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"pool.gpus = 0.5: 2 scorers x pool.min need 1 GPUs, and the cluster has 0"):
        score_images(settings(pictures, tmp_path / "out", pool={"gpus": 0.5}))
