"""SDXL by its published shapes, measured on tensors without data: what fits on which cards."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from rayalign.cli import parse
from rayalign.config import RunConfig
from rayalign.planning.costs import Costs, measure_costs
from rayalign.planning.dry_run import dry_run
from rayalign.planning.hardware import parse_hardware
from rayalign.planning.plan import make_plan

ROOT = Path(__file__).parents[2]
SHARED = {"train": {"gpus": 0.4}, "rollout": {"gpus": 0.4}, "scorer": {"gpus": 0.2}}
APART = {
    "train": {"num": 2, "gpus": 1},
    "rollout": {"min": 5, "max": 5, "gpus": 1},
    "scorer": {"gpus": 1},
}


def run(placement: dict[str, dict[str, float]]) -> RunConfig:
    """As `jobs/tailorpo_sdxl.py --reward pickscore` has it."""
    namespace: dict[str, Any] = {"__name__": "job"}
    exec((ROOT / "jobs" / "tailorpo_sdxl.py").read_text(encoding="utf-8"), namespace)
    options = [
        f"--placement.{group}.{name}={value}" for group, of in placement.items() for name, value in of.items()
    ]
    return parse("", namespace["DEFAULTS"], ["--reward", "pickscore", *options])


@pytest.fixture(scope="module")
def costs() -> Costs:
    """Of all these runs: placement changes none. Measured once, which takes some seconds."""
    return measure_costs(run(SHARED))


@pytest.mark.parametrize(
    ("hardware", "placement", "largest_gb"), [("1x80", SHARED, 79.2), ("1x141", SHARED, 79.2), ("8x80", APART, 59.8)]
)
def test_what_fits(
    hardware: str,
    placement: dict[str, dict[str, float]],
    largest_gb: float,
    costs: Costs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rayalign.planning.dry_run.measure_costs", lambda config: costs)
    said = dry_run(run(placement), hardware)
    assert said.endswith(f"fits {parse_hardware(hardware)}")
    assert "2,567 million weights in the denoiser, 5.8 million of them tuned (lora)" in said
    largest = max(float(found) for found in re.findall(r"^GPU \d+: .* = ([\d.]+) GB$", said, re.MULTILINE))
    assert largest == pytest.approx(largest_gb, abs=0.5)
    # Each process's terms add up to what it is said to take.
    for total, block in re.findall(r"^GPU memory of .*: ([\d.]+) GB\n((?:  .*\n)+)", said, re.MULTILINE):
        shown = [float(found) for found in re.findall(r"^ +([\d.]+) ", block, re.MULTILINE)]
        assert sum(shown) == pytest.approx(float(total), abs=0.1)


def test_the_page_shows_what_is_printed(costs: Costs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rayalign.planning.dry_run.measure_costs", lambda config: costs)
    page = (ROOT / "docs" / "planning.md").read_text(encoding="utf-8")
    assert f"```text\n{dry_run(run(APART), '8xh100')}\n```" in page


def test_24_gb_are_too_few_for_all_on_one_card_and_enough_to_draw(costs: Costs) -> None:
    plan = make_plan(run(SHARED), parse_hardware("1x24"), costs)
    assert "need 79.2 GB of a GPU that has 24" in plan.problems[0]
    assert plan.advice[0].settings == {"train": {"gradient_checkpointing": True}}
    members = {one.name: one.memory / 1e9 for one in plan.gpus[0].holds}
    assert members["rollout"] + members["scorer pickscore"] < 24 < members["train"]
