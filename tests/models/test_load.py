from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest

from rayalign.errors import ConfigError
from rayalign.models.families import find_family, find_published, resolve_path
from rayalign.toy import toy_path
from tests.toys import model_of


@pytest.mark.parametrize(("path", "family"), [("toy-sd15", "sd15"), ("toy-sdxl", "sdxl"), ("stub", "stub")])
def test_a_model_says_its_family(path: str, family: str) -> None:
    assert find_family(path).name == family


def copy_of_toy(folder: Path) -> Path:
    """model_index.json and empty component folders: all that is read before loading."""
    folder.mkdir(parents=True)
    index = json.loads((toy_path("toy-sd15") / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index))
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        (folder / part).mkdir()
    return folder


def test_a_folder_without_unet_is_refused_by_name(tmp_path: Path) -> None:
    folder = copy_of_toy(tmp_path / "model")
    assert find_family(str(folder)).name == "sd15"
    shutil.rmtree(folder / "unet")
    with pytest.raises(ConfigError, match="has no unet/, which StableDiffusionPipeline needs") as caught:
        find_family(str(folder))
    assert caught.value.field == "model.path"


def test_the_home_folder_is_written_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = copy_of_toy(tmp_path / "model")
    assert resolve_path("~/model") == str(folder)
    assert find_family("~/model").name == "sd15"
    shutil.rmtree(folder / "vae")
    with pytest.raises(ConfigError, match="has no vae/"):
        find_family("~/model")


@pytest.mark.parametrize("index", [None, "{", "[1, 2]"])
def test_a_folder_that_is_no_diffusers_model(tmp_path: Path, index: str | None) -> None:
    if index is not None:
        (tmp_path / "model_index.json").write_text(index)
    with pytest.raises(ConfigError, match=r"no readable model_index.json .* set a diffusers model folder"):
        find_family(str(tmp_path))


def test_another_kind_of_pipeline_names_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(ConfigError, match=r"it is a FluxPipeline; .*'StableDiffusionPipeline', 'StableDiffusionXLPipe"):
        find_family(str(tmp_path))


@pytest.mark.parametrize("path", ["./nowhere", "/nowhere/at/all", "toy-sdx", "~/no such folder"])
def test_a_path_that_is_nothing(path: str) -> None:
    with pytest.raises(ConfigError, match=r"no such folder; set a folder, a hub id .* toy-sd15, toy-sdxl"):
        find_family(path)


def test_a_stub_with_an_unknown_cost() -> None:
    with pytest.raises(ConfigError, match=r"set stub:<name>=<seconds>,... with names from .'denoise_s', 'train_s'."):
        model_of("stub:sleep_s=1")


@pytest.mark.parametrize("path", ["toy-sd15", "toy-sdxl"])
def test_what_is_not_tuned_is_frozen_and_the_resolution_the_models_own(path: str) -> None:
    model = model_of(path)
    assert not any(parameter.requires_grad for parameter in model.pipe.vae.parameters())
    assert model.resolution == model.pipe.unet.config.sample_size * model.pipe.vae_scale_factor


def test_an_unknown_lora_target_is_named() -> None:
    # `_q` is how a name ends, but no module is called so: peft would find none.
    for target in ("to_z", "_q"):
        with pytest.raises(ConfigError, match=f"model.tuning.targets = '{target}': the denoiser has no such module"):
            model_of("stub", model={"tuning": {"kind": "lora", "targets": [target]}})


def test_loading_twice_gives_the_same_lora_another_seed_another() -> None:
    states = [model_of("stub", seed=seed).weights.state() for seed in (0, 0, 1)]
    name = "to_q.lora_A"
    assert (states[0][name] == states[1][name]).all()
    assert (states[0][name] != states[2][name]).any()
    assert all((value == 0).all() for key, value in states[0].items() if key.endswith("lora_B"))


def test_a_family_against_the_models_own_word_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.family = 'sd15': toy-sdxl is a StableDiffusionXLPipeline, fam"):
        find_family("toy-sdxl", "sd15")
    assert find_family("toy-sdxl", "sdxl").name == "sdxl"
    with pytest.raises(ConfigError, match=r"model.family = 'flux': set auto, .*, or one of: sd15, sdxl, sd3, stub"):
        find_family("toy-sdxl", "flux")
    published = "stabilityai/stable-diffusion-xl-base-1.0"
    for family in ("flux", "sd3"):
        with pytest.raises(ConfigError, match=r"leave it at auto|set auto"):
            find_published(published, family)
    assert find_published(published) == find_published(published, "sdxl")
    assert find_published("toy-sdxl") is None


def test_a_silent_hub_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its client would try five times, for half a minute, and then speak of a file that the model lacks."""
    monkeypatch.setattr("rayalign.models.families.hub_silence", lambda: "the hub does not answer: no route")
    told = r"is not in the hub's local cache, and the hub does not answer: no route; set a local folder, or see to"
    start = time.process_time()
    with pytest.raises(ConfigError, match=told):
        find_family("nobody/no-such-model")
    assert time.process_time() - start < 20
