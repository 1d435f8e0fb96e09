"""Plans against hardware: what stands where, what fits, what to change, and the words for it."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from typing import Any

import pytest

from rayalign.cli import parse, run_job
from rayalign.config import RunConfig
from rayalign.errors import ConfigError
from rayalign.planning.costs import Call, Costs
from rayalign.planning.dry_run import dry_run, mend
from rayalign.planning.hardware import CARDS, Hardware, parse_hardware
from rayalign.planning.plan import EFFICIENCY, Plan, make_plan
from rayalign.planning.text import plan_text
from rayalign.planning.work import iteration_work

SHARED = {"train": {"gpus": 0.4}, "rollout": {"gpus": 0.4}, "scorer": {"gpus": 0.2}}
# Round numbers in the size of SDXL's.
COSTS = Costs(
    denoiser_parameters=2_500_000_000,
    vae_parameters=80_000_000,
    text_parameters=800_000_000,
    tuned_parameters=6_000_000,
    optimizer_bytes=48_000_000,
    bytes_per_weight=2,
    draw=Call(10**9, 50 * 10**12),
    decode=Call(6 * 10**9, 40 * 10**12),
    train=Call(48 * 10**9, 170 * 10**12),
    text_weights=1_600_000_000,
)


def run(**changes: Any) -> RunConfig:
    model = {"path": "stabilityai/stable-diffusion-xl-base-1.0"}
    tree = {"model": model, "rewards": [{"scorer": "pickscore"}], "placement": SHARED}
    return RunConfig.model_validate(tree | changes)


@pytest.mark.parametrize(
    ("text", "hardware"),
    [
        ("1x24", Hardware(1, CARDS["rtx4090"])),
        ("8xH100", Hardware(8, CARDS["h100"])),
        ("2x141", Hardware(2, CARDS["h200"])),
    ],
)
def test_hardware_by_card_or_by_memory(text: str, hardware: Hardware) -> None:
    assert parse_hardware(text) == hardware


@pytest.mark.parametrize("text", ["h100", "8", "1x25", "1xgtx970", "x"])
def test_hardware_that_is_not_known_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--dry-run"):
        parse_hardware(text)


def test_an_iteration_is_counted_as_the_sampler_counts() -> None:
    rollout = {"samples_per_ticket": 4, "tickets_per_iteration": 16}
    work = iteration_work(run(rollout=rollout))
    assert (work.trajectories, work.calls_per_trajectory, work.pairs) == (64, 25, 320)
    assert (work.draw_calls, work.decode_calls, work.train_calls) == (16 * 25, 16 * 11, 16 * 5)
    whole = iteration_work(run(rollout=rollout, pairs={"kind": "trajectory"}))
    assert (whole.trajectories, whole.draw_calls, whole.pairs) == (128, 16 * 40, 64 * 19)
    assert iteration_work(run(rollout=rollout, pairs={"kind": "dataset", "path": "pickapic"})).draw_calls == 0


def test_memory_adds_up_term_by_term() -> None:
    plan = make_plan(run(), parse_hardware("1x80"), COSTS)
    train = next(one for one in plan.gpus[0].holds if one.name == "train")
    tensors = 2 * 2.58e9 + 8 * 6e6 + 12 * 6e6 + 48e9
    assert train.memory == pytest.approx(1.1 * tensors + 0.5e9)
    assert [one.name for one in plan.gpus[0].holds] == ["train", "rollout", "scorer pickscore"]
    assert plan.gpus[0].memory == pytest.approx(sum(one.memory for one in plan.gpus[0].holds))
    assert f"{plan.gpus[0].memory / 1e9:.1f} GB" in plan_text(plan)


def terms(plan: Plan, name: str) -> dict[str, float]:
    return dict(next(one for gpu in plan.gpus for one in gpu.holds if one.name == name).terms)


def test_an_average_and_held_out_pictures_are_the_trainers() -> None:
    hardware, average = parse_hardware("1x80"), "average of the policy, float32"
    assert average not in terms(make_plan(run(), hardware, COSTS), "train")
    kept = make_plan(run(train={"ema_decay": 0.999}, evaluation={"every": 5}), hardware, COSTS)
    assert terms(kept, "train")[average] == 4 * 6e6
    assert "micro-batch at its peak" in terms(kept, "train")
    # 64 pictures together take 16 times what the VAE takes of a ticket's 4.
    many = make_plan(run(evaluation={"every": 5, "batch": 64}), hardware, COSTS)
    assert terms(many, "train")["held-out pictures: VAE"] == 16 * 6e9
    assert many.advice[0].settings == {"evaluation": {"batch": 32}}
    unmeasured = make_plan(run(evaluation={"every": 0, "batch": 64}), hardware, COSTS)
    assert "micro-batch at its peak" in terms(unmeasured, "train")


def test_pictures_of_the_comparison_have_to_fit_without_the_trainer() -> None:
    place = {"train": {"gpus": 1}, "rollout": {"gpus": 0.5}, "scorer": {"gpus": 0.5}}
    plan = make_plan(run(placement=place, evaluation={"every": 0, "batch": 64}), parse_hardware("2x80"), COSTS)
    assert plan.comparison is not None
    assert [one.name for one in plan.comparison.holds] == ["drawing for the comparison", "scorer pickscore"]
    pictures = 1.1 * (2 * 2.58e9 + 4 * 6e6 + 16 * 6e9) + 0.5e9
    assert plan.comparison.holds[0].memory == pytest.approx(pictures)
    assert "drawing 64 pictures together needs" in plan.problems[0]
    assert f"{plan.comparison.memory / 1e9:.1f} GB" in plan_text(plan)
    steps = mend(plan, parse_hardware("2x80"))
    assert [text.split(" (")[0] for text, _ in steps] == ["--evaluation.batch 32"]
    assert not steps[-1][1].problems


def test_the_pool_that_embeds_pairs_has_its_place() -> None:
    place = SHARED | {"scorer": {"gpus": 0.1}, "annotate": {"gpus": 0.1}}
    plan = make_plan(run(placement=place, objective={"kind": "rpo"}), parse_hardware("1x141"), COSTS)
    found = terms(plan, "annotate")
    assert found["weights, float32"] == 4 * 986_109_441  # the embedder is CLIP ViT-H/14
    assert found["a ticket's winners through the VAE"] == 5 * 6e9  # five tuned steps of each sample
    assert "annotate" in plan_text(plan)
    assert "annotate" not in plan_text(make_plan(run(), parse_hardware("1x141"), COSTS))


def test_time_is_operations_over_speed() -> None:
    plan = make_plan(run(), parse_hardware("1xh100"), COSTS)
    work, speed = plan.work, 989e12 * EFFICIENCY
    drawing = (work.draw_calls * 50e12 + work.decode_calls * 40e12) / speed
    assert plan.rollout_s == pytest.approx(drawing)
    assert plan.iteration_s == pytest.approx(drawing + work.train_calls * 170e12 / speed)
    assert plan.gpu_hours == pytest.approx(plan.iteration_s * plan.config.iterations / 3600)
    beside = make_plan(run(rollout={"max_lag": 1}), parse_hardware("1xh100"), COSTS)
    assert beside.iteration_s == pytest.approx(max(beside.rollout_s, beside.training_s))


@pytest.mark.parametrize("hardware", ["1x24", "1x80", "1x141", "8xh100"])
def test_what_fits_and_what_does_not(hardware: str) -> None:
    given = parse_hardware(hardware)
    plan = make_plan(run(), given, COSTS)
    assert given.card is not None
    assert bool(plan.problems) == (plan.gpus[0].memory > given.card.memory_gb * 1e9)
    said = plan_text(plan)
    assert (f"fits {given}" in said) == (not plan.problems) or "does not fit" in said


def test_scorers_stand_where_each_is_placed() -> None:
    rewards = [{"scorer": "jpeg", "placement": {"cpus": 0.5, "max": 2}}, {"scorer": "pickscore"}]
    heldout = {"scorers": [{"scorer": "hpsv2", "placement": {"gpus": 1, "min": 2, "max": 2}}]}
    plan = make_plan(run(rewards=rewards, evaluation=heldout), parse_hardware("4xh100"), COSTS)
    held = sorted([one.name for one in gpu.holds] for gpu in plan.gpus)
    assert held == [["scorer hpsv2"], ["scorer hpsv2"], ["train", "rollout", "scorer pickscore"]]
    lines = [line.split() for line in plan_text(plan).splitlines() if line.startswith("  scorer")]
    assert [" ".join(line) for line in lines] == [
        "scorer jpeg 1 to 2 0.5 CPUs, 0 GPUs each",
        "scorer pickscore 1 to 1 1 CPUs, 0.2 GPUs each",
        "scorer hpsv2 2 to 2 1 CPUs, 1 GPUs each",
    ]


def test_more_processes_than_gpus_is_a_problem() -> None:
    place = {"train": {"num": 2, "gpus": 1}, "rollout": {"min": 2, "max": 2, "gpus": 1}, "scorer": {"gpus": 1}}
    plan = make_plan(run(placement=place), parse_hardware("4xh100"), COSTS)
    assert len(plan.gpus) == 5
    assert any("takes 5 GPUs and there are 4" in problem for problem in plan.problems)
    assert not make_plan(run(placement=place), parse_hardware("8xh100"), COSTS).problems


def test_advice_is_taken_until_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(config: RunConfig, sampled: Costs | None = None) -> Costs:
        share = 0.3 if config.train.gradient_checkpointing else 1.0
        peak = int(COSTS.train.peak * share * config.train.micro_batch / 4)
        return Costs(**{**vars(COSTS), "train": Call(peak, COSTS.train.flops)})

    monkeypatch.setattr("rayalign.planning.dry_run.measure_costs", measured)
    hardware = parse_hardware("1x48")
    steps = mend(make_plan(run(), hardware, measured(run())), hardware)
    texts = [text for text, _ in steps]
    assert texts[0].startswith("--train.gradient_checkpointing true")
    assert [bool(plan.problems) for _, plan in steps] == [True] * (len(steps) - 1) + [False]


def test_no_gpu_is_no_problem_for_a_toy_and_one_for_sdxl() -> None:
    assert "runs on CPUs" in dry_run(RunConfig(model={"path": "toy-sdxl"}), "")
    plan = make_plan(run(placement={}), Hardware(0, None), COSTS)
    assert "no process a GPU" in plan.problems[0]
    assert math.isnan(plan.iteration_s)


def test_a_stub_costs_nothing() -> None:
    with pytest.raises(ConfigError, match="a stub costs nothing"):
        dry_run(RunConfig(model={"path": "stub"}), "1x24")


def test_what_a_run_would_refuse_here_comes_after_the_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["--dry-run", "1x24", "--pairs.kind", "dataset", "--pairs.path", str(tmp_path / "nowhere")]
    with pytest.raises(ConfigError, match=r"^pairs\.path = '.*nowhere'"):
        run_job("", {}, line)
    assert "rollout" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="gradient guidance needs scorers that have a gradient"):
        run_job("", {}, ["--dry-run", "1x24", "--pairs.guidance.enabled", "true"])


def test_a_job_that_makes_its_pairs_is_planned_before_they_are_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = runpy.run_path(str(Path(__file__).parents[2] / "jobs" / "style_alignment.py"))
    line = ["--model", "toy-sdxl", "--dry-run", "1x24", "--output", str(tmp_path)]
    run_job("", job["DEFAULTS"], line, job["StyleConfig"], start=print, toy=job.get("TOY"))
    assert "rollout" in capsys.readouterr().out


def test_settings_are_checked_before_anything_is_planned() -> None:
    with pytest.raises(ConfigError, match=r"train\.optimizer_steps|tickets_per_iteration"):
        parse("", {}, ["--rollout.tickets_per_iteration", "7", "--train.optimizer_steps", "2"])
