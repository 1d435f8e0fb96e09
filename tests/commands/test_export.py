"""`rayalign export` on a run's folder: every form loads in diffusers and draws the policy's pictures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from rayalign.commands.main import main
from rayalign.config import RunConfig
from rayalign.evaluation.comparison import compare
from rayalign.evaluation.history import history_line
from rayalign.evaluation.image_set import ImageSet
from rayalign.learning.checkpoint import Checkpoint
from rayalign.learning.checkpoint_place import LocalPlace
from rayalign.learning.checkpoint_store import CheckpointStore
from rayalign.learning.good_policy import save_good
from rayalign.models.families import resolve_path
from rayalign.models.load import load_model
from rayalign.models.text_to_image import TextToImage
from rayalign.records import IterationRecord
from rayalign.sampling.images import draw_images
from tests.toys import PROMPTS, SEEDS, nudged

CONVOLUTIONS = ["to_q", "to_out.0", "conv1"]  # what a toy tunes beside attention
TWO_LEVELS = 2 / 255


def a_run(folder: Path, path: str, **changes: Any) -> tuple[Path, TextToImage]:
    """A run that has ended, as far as its folder goes, and its policy in place."""
    tree = {"name": "first", "output": str(folder), "model": {"path": path, "tuning": {"targets": CONVOLUTIONS}}}
    config = RunConfig.model_validate(tree | changes)
    model = load_model(config, "cpu", ("policy",))
    arrays = nudged(model, 1, scale=0.05)
    config.folder.mkdir(parents=True)
    (config.folder / "config.yaml").write_text(config.to_yaml())
    state = Checkpoint(3, config.model_dump(mode="json"), policy=arrays, reference=arrays, optimizer={})
    CheckpointStore.at(config.checkpoint_root).save(state)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    before, after = (
        ImageSet(["a cat", "a dog"] * 2, [0, 0, 1, 1], images, {"jpeg": rng.normal(size=4), "clip": rng.normal(size=4)})
        for _ in range(2)
    )
    summary = {"reward": compare(before, after, ["jpeg"], ["clip"]), "num_iterations": 3, "process": "ddim"}
    (config.folder / "summary.json").write_text(json.dumps(summary))
    (config.folder / "images").mkdir()
    Image.new("RGB", (8, 8)).save(config.folder / "images" / "before_after.png")
    model.weights.load("policy", arrays)
    return config.folder, model


def pipeline(path: str | Path) -> Any:
    from diffusers import DiffusionPipeline

    return DiffusionPipeline.from_pretrained(path)


def lora_in(pipe: Any, part: str) -> dict[str, torch.Tensor]:
    from peft.utils import get_peft_model_state_dict

    return get_peft_model_state_dict(getattr(pipe, part), adapter_name="policy")


@pytest.mark.parametrize("path", ["toy-sd15", "toy-sdxl"])
def test_the_kohya_form_converts_back_to_the_same_weights(path: str, tmp_path: Path) -> None:
    run, model = a_run(tmp_path, path)
    assert main(["export", str(run), "--to", "kohya"]) == 0
    file = run / "export" / "kohya" / "first.safetensors"
    pipe = pipeline(resolve_path(path))
    pipe.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name="policy")
    found, wanted = lora_in(pipe, "unet"), model.weights.state()
    assert {name.removesuffix(".weight") for name in found} == set(wanted)
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[f"{name}.weight"].numpy(), value)
    scales = {layer.scaling["policy"] for layer in pipe.unet.modules() if getattr(layer, "scaling", {}).get("policy")}
    assert scales == {1.0}
    with safe_open(file, "pt") as weights:
        names, rank = list(weights.keys()), weights.metadata()["ss_network_dim"]
    assert all(re.fullmatch(r"lora_unet_\w+\.(lora_(down|up)\.weight|alpha)", name) for name in names)
    assert {len(value) for name, value in wanted.items() if name.endswith("lora_A")} == {int(rank)}


def test_kohya_weights_are_rounded_if_asked(tmp_path: Path) -> None:
    run, _ = a_run(tmp_path, "toy-sd15")
    assert main(["export", str(run), "--to", "kohya", "--dtype", "float16", "--output", str(tmp_path / "loras")]) == 0
    assert {value.dtype for value in load_file(tmp_path / "loras" / "first.safetensors").values()} == {torch.float16}


@pytest.mark.parametrize("path", ["toy-sd15", "toy-sdxl", "toy-sd3"])
def test_the_fused_folder_draws_the_policys_pictures(path: str, tmp_path: Path) -> None:
    targets = {"targets": ["to_q", "to_v"]} if path == "toy-sd3" else {"targets": CONVOLUTIONS}
    run, model = a_run(tmp_path, path, model={"path": path, "tuning": targets})
    assert main(["export", str(run), "--to", "fused"]) == 0
    fused = RunConfig.model_validate({"model": {"path": str(run / "export" / "fused")}})
    plain = load_model(fused, "cpu", ("policy",))
    drawn, wanted = (draw_images(one, PROMPTS, SEEDS).numpy() for one in (plain, model))
    untuned = draw_images(model, PROMPTS, SEEDS, "initial").numpy()
    assert np.abs(wanted - untuned).max() > 20 * TWO_LEVELS  # the LoRA shows
    assert np.abs(drawn - wanted).max() < TWO_LEVELS


def test_a_card_says_what_was_tuned_and_how_it_scored(tmp_path: Path) -> None:
    run, _ = a_run(tmp_path, "toy-sdxl")
    assert main(["export", str(run)]) == 0
    folder = run / "export" / "diffusers"
    card = ModelCard.load(folder / "README.md")
    assert card.data.library_name == "diffusers"
    assert "lora" in card.data.tags
    summary = json.loads((run / "summary.json").read_text())
    values = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert values == {name: round(entry["after"]["mean"], 6) for name, entry in summary["reward"].items()}
    assert "| clip | held out |" in card.text
    assert yaml.safe_load(card.text.partition("```yaml\n")[2].partition("```")[0])["name"] == "first"
    assert (folder / "before_after.png").exists()
    assert (folder / "pytorch_lora_weights.safetensors").exists()


def test_a_run_that_went_back_gives_the_policy_that_it_ended_with(tmp_path: Path) -> None:
    run, model = a_run(tmp_path, "toy-sd15")
    good = {name: value * 0.5 for name, value in model.weights.state().items()}
    save_good(LocalPlace(run / "checkpoints"), 2, good)
    (run / "history.jsonl").write_text(history_line(IterationRecord(2, 3, {}, {}, {}, 0, {"rollback": 2})))
    assert main(["export", str(run)]) == 0
    found = load_file(run / "export" / "diffusers" / "pytorch_lora_weights.safetensors")
    assert len(found) == len(good)
    for name, value in good.items():
        np.testing.assert_array_equal(found[f"unet.{name}.weight"].numpy(), value)


@pytest.mark.parametrize(
    ("change", "arguments", "said"),
    [
        ({"model": {"path": "toy-sd3", "tuning": {"targets": ["to_q"]}}}, ["--to", "kohya"], "sd3 has no kohya names"),
        ({"model": {"path": "stub"}}, [], "tuned a stub"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    change: dict[str, Any], arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run, _ = a_run(tmp_path, change["model"]["path"], **change)
    assert main(["export", str(run), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["export", str(tmp_path)]) == 2
    assert "holds no config.yaml" in capsys.readouterr().err


class Hub:
    """Stands for the hub's client."""

    calls: ClassVar[list[tuple[str, Any]]] = []

    def create_repo(self, repository: str, private: bool, exist_ok: bool) -> None:
        self.calls.append(("create", (repository, private, exist_ok)))

    def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str) -> str:
        self.calls.append(("upload", (repo_id, sorted(file.name for file in folder_path.iterdir()))))
        return f"https://hub.example/{repo_id}"


def test_push_uploads_weights_and_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    run, _ = a_run(tmp_path, "toy-sd15")
    assert main(["export", str(run), "--push", "me/first", "--private"]) == 0
    files = ["README.md", "before_after.png", "pytorch_lora_weights.safetensors"]
    assert Hub.calls == [("create", ("me/first", True, True)), ("upload", ("me/first", files))]
    assert "https://hub.example/me/first" in capsys.readouterr().out
    assert main(["export", str(run), "--push", "no such name"]) == 2
