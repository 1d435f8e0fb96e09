"""The style job's settings, from Python and from its command line."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest
import yaml

from rayalign.cli import parse
from rayalign.config import RunConfig
from rayalign.config.style import DrawnStyle, StyleConfig
from rayalign.data.style import STYLES
from rayalign.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def job() -> ModuleType:
    spec = importlib.util.spec_from_file_location("style_alignment", ROOT / "jobs" / "style_alignment.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parsed(job: ModuleType, *arguments: str) -> Any:
    return parse("", job.DEFAULTS, list(arguments), StyleConfig, job.TOY)


def test_each_method_is_an_ordinary_run_on_the_same_pairs() -> None:
    config = StyleConfig.model_validate(
        {"name": "vangogh", "output": "out", "seed": 3, "iterations": 7, "rates": {"sft": 0.5}, "train": {"lr": 0.1}}
        | {"objective": {"beta": 70.0, "tau": 0.3}, "pairs": {"draws": 2}}
    )
    runs = {method: config.run_of(method) for method in config.methods}
    assert list(runs) == ["sft", "dpo", "rpo"]
    for method, run in runs.items():
        assert type(run) is RunConfig
        assert run.folder == Path("out/vangogh") / method
        assert run.pairs.path == "out/vangogh/pairs.parquet"  # type: ignore[union-attr]
        assert (run.seed, run.iterations, run.pairs.kind, run.pairs.draws) == (3, 7, "dataset", 2)  # type: ignore[union-attr]
        assert run.objective.kind == method
    assert [run.train.lr for run in runs.values()] == [0.5, 0.1, 0.1]
    assert (runs["dpo"].objective.beta, runs["rpo"].objective.beta) == (70.0, 70.0)  # type: ignore[attr-defined]
    assert runs["rpo"].objective.tau == 0.3  # type: ignore[attr-defined]


def test_the_pairs_follow_the_folder() -> None:
    first = StyleConfig(name="first")
    assert (first.pairs.path, first.pairs.cache) == ("runs/first/pairs.parquet", "runs/first/latents")
    assert StyleConfig.model_validate(yaml.safe_load(first.to_yaml())) == first
    assert StyleConfig.model_validate({"pairs": {"cache": None}}).pairs.cache is None
    with pytest.raises(ValueError, match=r"pairs.path = 'mine.parquet': the job makes its own pairs; leave it empty"):
        StyleConfig.model_validate({"pairs": {"path": "mine.parquet"}})


def test_what_decides_the_pictures() -> None:
    def decides(**changes: Any) -> dict[str, Any]:
        return StyleConfig.model_validate(changes).decides_pictures()

    assert decides() == decides(methods=["rpo"], iterations=99, model={"tuning": {"kind": "full"}})
    for change in ({"seed": 1}, {"style": {"name": "hatching"}}, {"num_pairs": 5}, {"sampler": {"num_steps": 4}}):
        assert decides(**change) != decides()


def test_the_drawn_styles_are_those_there_are() -> None:
    assert set(get_args(DrawnStyle.model_fields["name"].annotation)) == set(STYLES)


def test_the_job_is_the_papers_on_sdxl_and_a_drawing_on_a_toy(job: ModuleType) -> None:
    real = parsed(job)
    assert (real.model.path, real.style.kind) == ("stabilityai/stable-diffusion-xl-base-1.0", "img2img")
    assert (real.objective.kind, real.objective.embedder, real.scorer_names) == ("rpo", "clip", ["clip"])
    for name in ("toy-sd15", "toy-sdxl", "toy-sd3"):
        toy = parsed(job, "--model", name)
        assert (toy.style.kind, toy.objective.embedder, toy.scorer_names) == ("drawn", "toy-clip", ["toy-clip"])
        assert (toy.features.extractor, toy.prompts.source) == ("toy-clip", "shapes")
        assert [toy.run_of(method).pairs.path for method in toy.methods] == ["runs/style-alignment/pairs.parquet"] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("--style.kind", "lora", "--style.strength", "1"),
            "style.strength = 1: style.kind = lora has no such setting",
        ),
        (("--style.kind", "oil"), "style.kind = 'oil': no such kind; set one of 'drawn', 'img2img', 'lora', 'folder'"),
        (("--style.strength", "1.5"), "style.strength = 1.5: Input should be less than or equal to 1"),
        (("--methods", "sft,sft"), "methods = ['sft', 'sft']: a method stands twice"),
        (("--methods", "ppo"), "methods.0 = 'ppo': Input should be 'sft', 'dpo' or 'rpo'"),
        (("--pairs.kind", "final"), "--pairs.kind: no such setting"),
        (("--num_pair", "9"), "did you mean --num_pairs?"),
        (("--pairs.draws", "0"), "pairs.draws = 0: Input should be greater than or equal to 1"),
        (("--objective.tau", "0"), "objective.tau = 0: Input should be greater than 0"),
    ],
)
def test_a_refusal_says_what_to_set(job: ModuleType, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(job, *arguments)
    assert message in str(caught.value)


def test_settings_of_the_job_from_its_command_line(job: ModuleType, tmp_path: Path) -> None:
    arguments = ("--model", "toy-sdxl", "--methods", "rpo,sft", "--features.options", "{device: cpu}")
    found = parsed(job, *arguments, "--style.name", "hatching", "--rates.rpo", "2e-3")
    assert (found.methods, found.features.options) == (("rpo", "sft"), {"device": "cpu"})
    assert (found.style.name, found.rates.rpo, found.rates.sft) == ("hatching", 2e-3, job.TOY["rates"]["sft"])
    file = tmp_path / "config.yaml"
    file.write_text(found.to_yaml())
    assert parsed(job, "--config", str(file)) == found


def test_help_lists_the_jobs_own_settings() -> None:
    command = [sys.executable, str(ROOT / "jobs" / "style_alignment.py"), "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={"PYTHONPATH": str(ROOT)})
    words = set(done.stdout.split())
    assert done.returncode == 0
    assert {"--methods", "--num_pairs", "--style.suffix", "--rates.rpo", "--objective.tau", "--model"} <= words
    assert not {"--pairs.kind", "--objective.kind"} & words
