"""An evaluation whole: base against a LoRA and a whole model, stopped half-way, and by other numbers of actors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rayalign.config.evaluate import EvaluateConfig
from rayalign.errors import ConfigError
from rayalign.evaluation.image_set import ImageSet
from rayalign.evaluation.part_files import PartFiles
from rayalign.models.export import save_lora
from rayalign.pipeline.evaluate import evaluate
from rayalign.toy import toy_path
from tests.toys import model_of, nudged


def settings(folder: Path, **changes: Any) -> EvaluateConfig:
    tree: dict[str, Any] = {
        "output": str(folder),
        "base": {"path": "toy-sdxl"},
        "sampler": {"num_steps": 4, "guidance_scale": 1.0},
        "prompts": {"source": "shapes-heldout", "num": 6},
        "seeds_per_prompt": 2,
        "batch": 4,
        "rewards": [{"scorer": "jpeg"}],
        "heldout": [{"scorer": "toy-clip", "options": {"chunk": 8}}],  # which the distance of two pictures has not
        "pool": {"cpus": 0.5},
        "scorer": {"cpus": 0.1},
        "stall_timeout_s": 250,
    }
    return EvaluateConfig.model_validate(tree | changes)


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = model_of("toy-sdxl", adapters=("policy",))
    return save_lora(tmp_path_factory.mktemp("lora"), model.family, nudged(model, 1, scale=0.1)).parent


@pytest.mark.slow
def test_the_same_numbers_from_one_and_three_actors_and_after_a_stop(
    ray_cluster: None, lora: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    models = {"tuned": str(lora)}
    whole = evaluate(settings(tmp_path, name="one", models=models))
    assert "| jpeg | guiding | base |" in capsys.readouterr().out

    written, real = [], PartFiles.write

    def stop_after_two(files: PartFiles, label: str, part: int, table: Any) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append((label, part))
        real(files, label, part, table)

    three = settings(tmp_path, name="three", models=models, pool={"min": 3, "max": 3, "cpus": 0.5})
    monkeypatch.setattr(PartFiles, "write", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        evaluate(three)
    monkeypatch.setattr(PartFiles, "write", real)
    again = evaluate(three)
    assert {**again, "name": ""} == {**whole, "name": ""}
    assert json.loads((three.folder / "evaluation.json").read_text()) == again

    sets = {label: ImageSet.load(three.folder / "images" / label) for label in ("base", "tuned")}
    assert [len(images) for images in sets.values()] == [12, 12]
    assert (sets["base"].images != sets["tuned"].images).any()
    rows = pq.read_table(three.folder / "scores.parquet").to_pylist()
    assert len(rows) == 24
    # Win rate by hand, from the table of scores alone.
    by_model = {label: [row["jpeg"] for row in rows if row["model"] == label] for label in ("base", "tuned")}
    before, after = (np.array(by_model[label]) for label in ("base", "tuned"))
    wins = np.where(after > before, 1.0, np.where(after == before, 0.5, 0.0)).mean()
    assert again["models"]["tuned"]["scores"]["jpeg"]["win_rate"]["mean"] == pytest.approx(wins)
    assert again["models"]["tuned"]["clip_distance"]["mean"] > 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reference": {"folder": "nowhere"}}, r"reference\.folder = 'nowhere': no such folder"),
        ({"reference": {"folder": "few"}}, r"reference\.folder = 'few': holds 2 pictures"),
        ({"reference": {"folder": "broken"}}, r"reference\.folder = 'broken': 2\.png is no picture"),
        ({"reference": {"folder": "good", "extractor": "klip"}}, r"reference\.extractor = 'klip': no such extractor"),
        (
            {"reference": {"folder": "good", "extractor": "toy-clip", "options": {"model": "x"}}},
            r"reference\.options = .*unexpected keyword argument 'model'",
        ),
        (
            {"reference": {"folder": "good"}, "prompts": {"source": "shapes-heldout", "num": 1}},
            r"reference\.folder = 'good': 2 images of each model are too few for FID and KID",
        ),
    ],
)
def test_a_reference_that_cannot_be_used_is_refused_before_anything_is_drawn(
    changes: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, count in (("few", 2), ("broken", 2), ("good", 3)):
        Path(name).mkdir()
        for number in range(count):
            Image.new("RGB", (8, 8)).save(f"{name}/{number}.png")
    Path("broken/2.png").write_text("no picture")
    with pytest.raises(ConfigError, match=said):
        evaluate(settings(tmp_path, **changes))
    assert not (tmp_path / "evaluation").exists()


def test_more_prompts_than_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = {"prompts": {"source": "shapes-heldout", "num": 200}, "models": {"tuned": "nowhere"}}
    with pytest.raises(ConfigError):
        evaluate(settings(tmp_path, **few))
    assert capsys.readouterr().out == "shapes-heldout has 100 prompts; 200 were asked for\n"


def test_a_lora_of_another_base_is_refused(lora: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"models\.tuned = .*set a LoRA made for this model"):
        evaluate(settings(tmp_path, models={"tuned": str(lora)}, base={"path": "toy-sd15"}))
    assert not (tmp_path / "evaluation").exists()


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ({"tuned": "nowhere/at/all.safetensors"}, r"models\.tuned"),
        ({"tuned": str(toy_path("toy-sd15"))}, r"models\.tuned.*family sd15, the base of sdxl"),
    ],
)
def test_a_model_that_cannot_be_drawn_from_is_refused(models: dict[str, str], said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        evaluate(settings(tmp_path, models=models))
    assert not (tmp_path / "evaluation").exists()
