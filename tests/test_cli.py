from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rayalign.cli import parse, settings
from rayalign.config import RunConfig
from rayalign.errors import ConfigError
from rayalign.toy.settings import TOY

ROOT = Path(__file__).parents[1]
JOBS = ("tailorpo_sd15", "tailorpo_sdxl")
DEFAULTS: dict[str, Any] = {"name": "a-job", "iterations": 40, "train": {"lr": 1e-4, "beta": 0.2}}


def parsed(*arguments: str) -> RunConfig:
    return parse("A job.", DEFAULTS, list(arguments))


def refused(*arguments: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parsed(*arguments)
    return str(caught.value)


def from_yaml(folder: Path, text: str, *arguments: str) -> RunConfig:
    file = folder / "run.yaml"
    file.write_text(text)
    return parsed("--config", str(file), *arguments)


def test_later_wins(tmp_path: Path) -> None:
    # The package's default < the job's < the toy's < the file's < the command line's.
    assert parsed("--model", "stub").train.lr == 1e-4
    assert parsed("--model", "stub").train.max_grad_norm == 1.0
    toy = parsed("--model", "toy-sd15")
    assert (toy.train.lr, toy.train.beta, toy.prompts.source) == (3e-2, 0.2, "shapes")
    assert toy.iterations == TOY["iterations"]
    file = "model: {path: toy-sd15}\ntrain: {lr: 0.5, beta: 0.3}"
    found = from_yaml(tmp_path, file, "--train.lr", "0.7")
    assert (found.train.lr, found.train.beta, found.iterations) == (0.7, 0.3, TOY["iterations"])
    # The line's model decides about toy settings, not the file's.
    assert from_yaml(tmp_path, file, "--model", "stub").iterations == 40


def test_a_runs_own_yaml_repeats_it(tmp_path: Path) -> None:
    first = parsed("--model", "toy-sdxl", "--reward", "jpeg=0.5", "--sampler.tuned_steps", "20,3", "--train.beta", "1")
    assert from_yaml(tmp_path, first.to_yaml()) == first


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        (["--sampler.tuned_steps", "20,10,5"], "sampler.tuned_steps", (20, 10, 5)),
        (["--sampler.tuned_steps", "[20, 10]"], "sampler.tuned_steps", (20, 10)),
        (["--sampler.tuned_steps=7"], "sampler.tuned_steps", (7,)),
        (["--model.lora.targets", "to_q,to_out.0"], "model.lora.targets", ("to_q", "to_out.0")),
        (["--evaluation.scorers", "clip,stub"], "evaluation.scorers", ("clip", "stub")),
        (["--train.betas", "0.8,0.9"], "train.betas", (0.8, 0.9)),
        (["--train.lr", "3e-5"], "train.lr", 3e-5),
        (["--train.ratio_clip", "null"], "train.ratio_clip", None),
        (["--train.ratio_clip", "0.2"], "train.ratio_clip", 0.2),
        (["--train.mixed_precision", "no"], "train.mixed_precision", "no"),
        (["--train.gradient_checkpointing", "true"], "train.gradient_checkpointing", True),
        (["--model.resolution", "512"], "model.resolution", 512),
        (["--model.vae", "null"], "model.vae", None),
        (["--prompts.heldout", "123"], "prompts.heldout", "123"),
        (["--name", "2024"], "name", "2024"),
        (["--prompts", "mine.txt"], "prompts.source", "mine.txt"),
        (["--placement.rollout.gpus", "0.5"], "placement.rollout.gpus", 0.5),
    ],
)
def test_a_setting_from_the_command_line(arguments: list[str], field: str, value: object) -> None:
    found: Any = parsed(*arguments)
    for part in field.split("."):
        found = getattr(found, part)
    assert found == value


def test_rewards_add_up_from_the_command_line() -> None:
    rewards = parsed("--reward", "clip=0.5", "--reward", "jpeg=2", "--reward=my.mod:Mine").rewards
    found = [(reward.scorer, reward.weight) for reward in rewards]
    assert found == [("clip", 0.5), ("jpeg", 2.0), ("my.mod:Mine", 1.0)]
    assert "set SCORER or SCORER=WEIGHT with a number" in refused("--reward", "jpeg=much")
    assert "stands twice" in refused("--reward", "jpeg", "--reward", "jpeg=2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--iterations", "0"], "iterations = 0: Input should be greater than or equal to 1"),
        (["--iterations", "many"], "iterations = 'many': Input should be a valid integer"),
        (["--iteration", "3"], "did you mean --iterations?"),
        (["--train.learning_rate", "1"], "--train.learning_rate = '': no such setting; did you mean --train."),
        (["--train.betta=1"], "did you mean --train.beta"),
        (["--lr", "1"], "did you mean --train.lr?"),
        (["--rewards", "1"], "did you mean --reward?"),
        (["--sampler.tuned_steps", "21,4"], "step 21 is outside the schedule; set steps between 1 and num_steps = 20"),
        (["--sampler.tuned_steps", ""], "sampler.tuned_steps"),
        (["--rollout.tickets_per_iteration", "7", "--train.optimizer_steps", "2"], "to a multiple, 8 for instance"),
        (["--train.lr", "nan"], "train.lr = 'nan': Input should be a finite number"),
        (["--model.family", "sd3"], "model.family = 'sd3': Input should be 'auto', 'sd15', 'sdxl' or 'stub'"),
        (["--config", "/nowhere.yaml"], "--config = '/nowhere.yaml': cannot be read"),
    ],
)
def test_a_refusal_says_what_to_set(arguments: list[str], message: str) -> None:
    assert message in refused(*arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {learning_rat: 1}", "train.learning_rat = '': no such setting; did you mean train."),
        ("iteration: 3", "did you mean iterations?"),
        ("trian: {lr: 1}", "trian = '': no such setting; did you mean train"),
        ("rewards: [{scorer: jpeg, weigth: 2}]", "rewards.0.weigth = '': no such setting; did you mean rewards.0.w"),
        ("train: 3", "train = 3: it is a group; set its members by name: adam_eps, beta, betas"),
        ("train:", "train = None: it is a group"),
        ("model: toy-sdxl", "model = 'toy-sdxl': it is a group; set its members by name: dtype, family, lora.rank"),
        ("model: 3", "model = 3: it is a group"),
        ("model: {path: 3}", "model.path = 3: Input should be a valid string"),
        ("rewards: [jpeg]", "rewards.0 = 'jpeg': it is a group; set its members by name: options, scorer, weight"),
        ("rewards: jpeg", "rewards = 'jpeg': Input should be a valid tuple"),
        ("just words", "--config = "),
        ("a: [", "cannot be read"),
    ],
)
def test_a_refusal_of_a_file_says_what_to_set(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_yaml(tmp_path, text)
    assert message in str(caught.value)


def run_job(job: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "1000"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


@pytest.mark.parametrize("job", JOBS)
def test_help_is_instant_and_lists_every_setting(job: str) -> None:
    cpu_s = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = run_job(job, "--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_s.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert done.returncode == 0
    assert min(cpu_s) < 1.0
    words = set(done.stdout.split())
    assert not [field for field, _ in settings(RunConfig) if field != "rewards" and f"--{field}" not in words]
    assert {"--model", "--reward", "--prompts", "--config"} <= words


def test_a_bad_setting_ends_a_job_with_one_line() -> None:
    done = run_job("tailorpo_sdxl", "--iterations", "0")
    assert done.returncode == 2
    assert done.stderr == "error: iterations = 0: Input should be greater than or equal to 1\n"
    assert done.stdout == ""


@pytest.mark.parametrize("job", JOBS)
def test_the_jobs_defaults_are_valid(job: str) -> None:
    namespace: dict[str, Any] = {"__name__": job}
    exec((ROOT / "jobs" / f"{job}.py").read_text(), namespace)
    config = parse("", namespace["DEFAULTS"], [])
    samples = config.iterations * config.rollout.tickets_per_iteration * config.rollout.samples_per_ticket
    assert samples == 10_240  # the paper's 10,000
    assert parse("", namespace["DEFAULTS"], ["--model", "toy-sdxl", "--reward", "jpeg"]).iterations == TOY["iterations"]
