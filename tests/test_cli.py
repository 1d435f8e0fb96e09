from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rayalign.cli import main, parse, settings
from rayalign.config import RunConfig
from rayalign.errors import ConfigError
from rayalign.toy.settings import BY_CLIP, TOY

ROOT = Path(__file__).parents[1]
JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py") if "\nDEFAULTS = " in path.read_text())
# What belongs to a kind stands beside it in a job.
DEFAULTS: dict[str, Any] = {
    "name": "a-job",
    "iterations": 40,
    "train": {"lr": 1e-4},
    "pairs": {"kind": "stepwise", "min_gap": 0.25},
    "objective": {"kind": "dpo", "beta": 0.2},
}


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
    assert (toy.train.lr, toy.objective.beta, toy.prompts.source) == (3e-2, 0.2, "shapes")
    assert (toy.pairs.tuned_steps, toy.pairs.min_gap) == ((14, 12, 10, 8, 6), 0.25)
    assert toy.iterations == TOY["iterations"]
    file = "model: {path: toy-sd15}\ntrain: {lr: 0.5}\nobjective: {beta: 0.3}"
    found = from_yaml(tmp_path, file, "--train.lr", "0.7")
    assert (found.train.lr, found.objective.beta, found.iterations) == (0.7, 0.3, TOY["iterations"])
    # The line's model decides about toy settings, not the file's.
    assert from_yaml(tmp_path, file, "--model", "stub").iterations == 40


def test_a_runs_own_yaml_repeats_it(tmp_path: Path) -> None:
    first = parsed(
        "--model", "toy-sdxl", "--reward", "jpeg=0.5", "--pairs.tuned_steps", "20,3", "--objective.beta", "1"
    )
    assert from_yaml(tmp_path, first.to_yaml()) == first


@pytest.mark.parametrize(
    "arguments",
    [
        ("--pairs.kind", "trajectory", "--reference.kind", "copied", "--reference.max_divergence", "null"),
        ("--pairs.kind", "final", "--objective.kind", "rpo", "--timesteps.kind", "early", "--reward_scale", "snr"),
        ("--pairs.kind", "sample", "--objective.kind", "ddpo", "--model.tuning.kind", "full"),
    ],
    ids=lambda arguments: arguments[1],
)
def test_so_does_that_of_another_choice(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    for model in ("stub", "toy-sdxl"):
        first = parsed("--model", model, *arguments)
        assert from_yaml(tmp_path, first.to_yaml()) == first


def test_another_kind_leaves_the_settings_of_the_first_behind(tmp_path: Path) -> None:
    """A job's min_gap and beta belong to its own pairs and objective."""
    trajectory = parsed("--pairs.kind", "trajectory").pairs
    assert (trajectory.kind, trajectory.min_gap) == ("trajectory", 0.0)
    assert parsed("--objective.kind", "rpo").objective.beta is None
    assert from_yaml(tmp_path, "pairs: {kind: final}", "--pairs.draws", "3").pairs.draws == 3
    # The same kind said again keeps them.
    assert parsed("--pairs.kind", "stepwise").pairs.min_gap == 0.25
    assert parsed("--objective.kind", "dpo", "--objective.ratio_clip", "null").objective.beta == 0.2


def test_a_toys_settings_go_with_the_choice_whoever_makes_it(tmp_path: Path) -> None:
    """Named on the line, in a file or by the job, the usual kind or another: it is the toy's version of it."""
    assert parsed("--model", "toy-sdxl", "--pairs.kind", "stepwise").pairs.tuned_steps == (14, 12, 10, 8, 6)
    assert parsed("--model", "toy-sdxl", "--objective.kind", "rpo").objective.embedder == "toy-clip"
    found = from_yaml(tmp_path, "model: {path: toy-sdxl}\nobjective: {kind: rpo, tau: 0.5}", "--pairs.kind", "final")
    assert (found.objective.beta, found.objective.tau, found.objective.embedder) == (500.0, 0.5, "toy-clip")
    assert "conv1" in parsed("--model", "toy-sdxl", "--model.tuning.kind", "lora").model.tuning.targets
    # A job that names no kind means the usual one.
    loose = parse("", {"pairs": {"min_gap": 0.5}}, ["--model", "toy-sdxl", "--pairs.kind", "stepwise"]).pairs
    assert (loose.min_gap, loose.tuned_steps) == (0.5, (14, 12, 10, 8, 6))
    assert parse("", {"pairs": {"min_gap": 0.5}}, ["--pairs.kind", "trajectory"]).pairs.min_gap == 0.0


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        (["--pairs.tuned_steps", "20,10,5"], "pairs.tuned_steps", (20, 10, 5)),
        (["--pairs.tuned_steps", "[20, 10]"], "pairs.tuned_steps", (20, 10)),
        (["--pairs.tuned_steps=7"], "pairs.tuned_steps", (7,)),
        (["--pairs.guidance.enabled", "true"], "pairs.guidance.enabled", True),
        (["--pairs.kind", "trajectory", "--pairs.steps", "9,8"], "pairs.steps", (9, 8)),
        (["--pairs.kind", "trajectory", "--pairs.steps", "null"], "pairs.steps", None),
        (["--pairs.kind", "final", "--pairs.draws", "2"], "pairs.draws", 2),
        (["--model.tuning.targets", "to_q,to_out.0"], "model.tuning.targets", ("to_q", "to_out.0")),
        (["--model.tuning.kind", "full"], "model.tuning.copies_on", "device"),
        (["--reference.kind", "copied", "--reference.every", "32"], "reference.every", 32),
        (["--reference.kind", "copied", "--reference.max_divergence", "null"], "reference.max_divergence", None),
        (["--timesteps.kind", "early", "--timesteps.gamma", "0.5"], "timesteps.gamma", 0.5),
        (["--objective.kind", "rpo", "--objective.gather", "true"], "objective.gather", True),
        (["--objective.kind", "rpo", "--objective.tau", "5e-1"], "objective.tau", 0.5),
        (["--evaluation.scorers", "clip,stub"], "heldout_names", ["clip", "stub"]),
        (["--evaluation.scorers", "clip,my.mod:Mine"], "evaluation.scorers.1.scorer", "my.mod:Mine"),
        (["--train.betas", "0.8,0.9"], "train.betas", (0.8, 0.9)),
        (["--train.lr", "3e-5"], "train.lr", 3e-5),
        (["--objective.ratio_clip", "null"], "objective.ratio_clip", None),
        (["--objective.ratio_clip", "0.2"], "objective.ratio_clip", 0.2),
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
        found = found[int(part)] if part.isdigit() else getattr(found, part)
    assert found == value


def test_rewards_add_up_from_the_command_line() -> None:
    rewards = parsed("--reward", "clip=0.5", "--reward", "jpeg=2", "--reward=my.mod:Mine").rewards
    found = [(reward.scorer, reward.weight) for reward in rewards]
    assert found == [("clip", 0.5), ("jpeg", 2.0), ("my.mod:Mine", 1.0)]
    assert "set SCORER or SCORER=WEIGHT with a number" in refused("--reward", "jpeg=much")
    assert "stands twice" in refused("--reward", "jpeg", "--reward", "jpeg=2")


@pytest.mark.parametrize(
    ("text", "scorer", "weight", "scale"),
    [
        ("clip", "clip", 1.0, "raw"),
        ("clip:standardised", "clip", 1.0, "standardised"),
        ("clip=0.7:standardised", "clip", 0.7, "standardised"),
        ("clip=-2:raw", "clip", -2.0, "raw"),
        ("my.mod:Mine", "my.mod:Mine", 1.0, "raw"),
        ("my.mod:Mine:standardised", "my.mod:Mine", 1.0, "standardised"),
        ("my.mod:Mine=3:standardised", "my.mod:Mine", 3.0, "standardised"),
    ],
)
def test_weight_and_scale_of_a_reward(text: str, scorer: str, weight: float, scale: str) -> None:
    (reward,) = parsed("--reward", text).rewards
    assert (reward.scorer, reward.weight, reward.scale) == (scorer, weight, scale)


def test_a_scale_that_is_none_and_one_without_a_spread_are_refused() -> None:
    misspelt = refused("--reward", "clip=1:standard")
    assert "rewards.0.scale = 'standard': Input should be 'raw' or 'standardised'" in misspelt
    one = ("--evaluation.num_prompts", "1", "--evaluation.seeds_per_prompt", "1")
    alone = refused("--reward", "jpeg:standardised", *one)
    assert "set evaluation.num_prompts or evaluation.seeds_per_prompt to 2" in alone
    assert parsed("--reward", "jpeg", *one).standardised == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--iterations", "0"], "iterations = 0: Input should be greater than or equal to 1"),
        (["--iterations", "many"], "iterations = 'many': Input should be a valid integer"),
        (["--iteration", "3"], "did you mean --iterations?"),
        (["--train.learning_rate", "1"], "--train.learning_rate: no such setting; did you mean --train."),
        (["--train.betta=1"], "did you mean --train.beta"),
        (["--objective.betta=1"], "did you mean --objective.beta"),
        (["--lr", "1"], "did you mean --train.lr?"),
        (["--rewards", "1"], "did you mean --reward?"),
        (
            ["--pairs.tuned_steps", "21,4"],
            "pairs.tuned_steps: step 21 is outside the schedule; set steps between 1 and sampler.num_steps = 20",
        ),
        (["--pairs.tuned_steps", ""], "pairs.tuned_steps = []: Tuple should have at least 1 item"),
        (["--sampler.tuned_steps", "4"], "did you mean --pairs.tuned_steps?"),
        (
            ["--pairs.kind", "pairwise"],
            "pairs.kind = 'pairwise': no such kind; set one of 'stepwise', 'trajectory', 'f",
        ),
        (["--objective.kind", "ppo"], "objective.kind = 'ppo': no such kind; set one of 'dpo', 'rpo', 'sft', 'ddpo'"),
        (["--pairs.draws", "2"], "pairs.draws = 2: pairs.kind = stepwise has no such setting; see --help"),
        (["--reference.every", "8"], "reference.every = 8: reference.kind = fixed has no such setting; see --help"),
        (["--model.tuning.copies_on", "cpu"], "model.tuning.copies_on = 'cpu': model.tuning.kind = lora has no such"),
        (["--objective.kind", "ddpo"], "objective.kind = ddpo does not train on pairs.kind = stepwise; set pairs.kind"),
        (["--timesteps.kind", "listed"], "timesteps.kind = listed is of re-noised pairs"),
        (["--rollout.tickets_per_iteration", "7", "--train.optimizer_steps", "2"], "to a multiple, 8 for instance"),
        (["--train.lr", "nan"], "train.lr = 'nan': Input should be a finite number"),
        (["--config", "/nowhere.yaml"], "--config = '/nowhere.yaml': cannot be read"),
    ],
)
def test_a_refusal_says_what_to_set(arguments: list[str], message: str) -> None:
    assert message in refused(*arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {learning_rat: 1}", "train.learning_rat: no such setting; did you mean train."),
        ("iteration: 3", "did you mean iterations?"),
        ("trian: {lr: 1}", "trian: no such setting; did you mean train"),
        ("rewards: [{scorer: jpeg, weigth: 2}]", "rewards.0.weigth: no such setting; did you mean rewards.0.w"),
        ("train: 3", "train = 3: it is a group; set its members by name: adam_eps, betas, ema_decay, gradient_check"),
        ("train:", "train = None: it is a group"),
        ("model: toy-sdxl", "model = 'toy-sdxl': it is a group; set its members by name: dtype, family, path, reso"),
        ("model: 3", "model = 3: it is a group"),
        ("model: {path: 3}", "model.path = 3: Input should be a valid string"),
        ("rewards: [jpeg]", "rewards.0 = 'jpeg': it is a group; set its members by name: environment, options, pla"),
        (
            "evaluation: {scorers: [clip, {scorer: jpeg, optoins: {quality: 5}}]}",
            "evaluation.scorers.1.optoins: no such setting; did you mean evaluation.scorers.1.options?",
        ),
        (
            "rewards: [{scorer: jpeg, placement: {gpu: 1}}]",
            "rewards.0.placement.gpu: no such setting; did you mean rewards.0.placement.gpus?",
        ),
        ("rewards: [{scorer: jpeg, placement: 1}]", "it is a group; set its members by name: cpus, gpus, max, min"),
        ("evaluation: {scorers: [3]}", "evaluation.scorers.0.scorer = 3: Input should be a valid string"),
        ("evaluation: {scorers: clip}", "evaluation.scorers = 'clip': Input should be a valid tuple"),
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
    defaults = namespace["DEFAULTS"]
    offline = defaults["pairs"]["kind"] == "dataset"
    if offline:
        with pytest.raises(ConfigError, match=r"pairs.path is empty; set the parquet file"):
            parse("", defaults, [])
    config = parse("", defaults, ["--pairs.path", "pickapic"] if offline else [])
    samples = config.iterations * config.rollout.tickets_per_iteration * config.rollout.samples_per_ticket
    samples *= config.pairs.num_candidates if config.pairs.kind == "trajectory" else 1
    # The paper's 10,000; of a dataset 2000 steps of 256 pairs, an eighth of the papers'.
    assert samples == (2000 * 256 if offline else 10_240)
    toy = parse("", defaults, ["--model", f"toy-{job.rpartition('_')[2]}"])
    assert toy.iterations == (BY_CLIP if toy.scorer_names == ["toy-clip"] else TOY)["iterations"]
    guided = bool(defaults["pairs"].get("guidance", {}).get("enabled"))
    assert toy.scorer_names == ["toy-clip" if guided else "jpeg"]
    assert toy.iterations == (BY_CLIP if guided else TOY)["iterations"]
    assert (toy.pairs.kind, toy.objective.kind) == (config.pairs.kind, config.objective.kind)


def test_a_full_disk_ends_a_job_with_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def fill(config: RunConfig) -> None:
        raise OSError(28, "No space left on device", "/runs/history.jsonl")

    monkeypatch.setattr(sys, "argv", ["job"])
    with pytest.raises(SystemExit) as caught:
        main("A job.", DEFAULTS, start=fill)
    assert caught.value.code == 1
    said = "error: [Errno 28] No space left on device: '/runs/history.jsonl'; RAYALIGN_VERBOSE=1 shows where\n"
    assert capsys.readouterr().err == said
    monkeypatch.setenv("RAYALIGN_VERBOSE", "1")
    with pytest.raises(OSError, match="No space left"):
        main("A job.", DEFAULTS, start=fill)
