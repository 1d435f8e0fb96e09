"""Two train workers learn what one with the same pairs learns, whatever the objective."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
import torch

from rayalign.learning.learner import Learner
from rayalign.objectives.table import OBJECTIVES
from tests.learning.learners import SOURCES, learner_of, parameters
from tests.learning.tables import embedded, pairs
from tests.learning.two_workers import WORKERS, run_two

# Two fresh processes import torch and diffusers: twenty seconds, minutes on a busy machine.
pytestmark = pytest.mark.timeout(900)

DPO: dict[str, Any] = {"kind": "dpo", "ratio_clip": None}
RPO: dict[str, Any] = {"kind": "rpo", "tau": 0.5}
# Everything that a row's weight or draw depends on.
EARLY: dict[str, Any] = {"timesteps": {"kind": "early", "gamma": 0.7}, "reward_scale": "snr"}
COPIED: dict[str, Any] = {"reference": {"kind": "copied", "every": 1, "max_divergence": None}}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "dpo on step-wise pairs": ("stepwise", {"objective": DPO} | EARLY | COPIED),
    "dpo on trajectories": ("trajectory", {"objective": DPO | {"ratio_clip": 0.3}} | EARLY),
    "dpo on final pairs": ("final", {"objective": DPO | {"beta": 50.0}, "pairs": {"draws": 2}} | EARLY),
    "rpo on step-wise pairs": ("stepwise", {"objective": RPO} | EARLY),
    "rpo on trajectories": ("trajectory", {"objective": RPO | {"placement": "inside"}}),
    "rpo on final pairs": ("final", {"objective": RPO | {"beta": 50.0}, "pairs": {"draws": 2}} | EARLY),
    "rpo gathered, step-wise": ("stepwise", {"objective": RPO | {"gather": True}} | EARLY),
    "rpo gathered, trajectories": ("trajectory", {"objective": RPO | {"gather": True, "placement": "inside"}}),
    "rpo gathered, final": (
        "final",
        {"objective": RPO | {"gather": True, "beta": 50.0}, "pairs": {"draws": 2}} | EARLY,
    ),
    "sft on step-wise pairs": ("stepwise", {"objective": {"kind": "sft"}} | EARLY),
    "sft on final pairs": ("final", {"objective": {"kind": "sft"}} | EARLY),
    "ddpo": ("sample", {"objective": {"kind": "ddpo", "ratio_clip": 0.5}} | EARLY),
}
# Of four tickets; in the last nothing is kept, so that the second worker's exchange has nothing of its own.
STATUSES = (
    ("kept", "tie", "kept", "kept", "kept", "score_failed"),
    ("kept", "kept", "kept", "kept", "tie", "kept"),
    ("small_gap", "kept", "kept", "kept", "kept", "kept"),
    ("tie",) * 6,
)
KEPT = 14
DIVERGENCE = "reference/divergence"
MEASURED = (DIVERGENCE, "guard/divergence")  # on the last micro-batch of each worker, so of other rows


class Learned(NamedTuple):
    gradient: torch.Tensor  # as the optimiser got it, one vector
    policy: torch.Tensor  # after its step
    metrics: dict[str, float]
    counts: dict[str, int]


def tickets(learner: Learner, source: str) -> list[pa.Table]:
    """Equal on every worker, since each is a function of its slot."""
    return [
        embedded(pairs(learner.model, 5 + slot, statuses, SOURCES[source][0], slot=[slot] * len(statuses)), slot)
        for slot, statuses in enumerate(STATUSES)
    ]


def learn(name: str, tables: Any) -> Learned:
    """One optimiser step on `tables` of all tickets."""
    source, groups = CASES[name]
    learner = learner_of(source=source, train={"micro_batch": 3}, **groups)
    gradients: list[torch.Tensor] = []

    def note(*_: Any) -> None:
        found = [parameter.grad.flatten().clone() for parameter in learner.model.weights.parameters("policy")]  # type: ignore[union-attr]
        gradients.append(torch.cat(found))

    learner.optimizer.optimizer.register_step_pre_hook(note)
    share = tables(tickets(learner, source))
    for position, table in enumerate(share):
        learner.add_ticket(table, last_of_step=position == len(share) - 1, position=position)
    learner.step()
    policy = torch.cat([value.flatten() for value in parameters(learner)])
    metrics, counts, _ = learner.finish_iteration()
    return Learned(gradients[0], policy, metrics, counts)


def worker(rank: int) -> dict[str, Learned]:
    return {name: learn(name, lambda tables: tables[rank::WORKERS]) for name in CASES}


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Learned]]:
    return run_two(tmp_path_factory.mktemp("two"), worker)


def alone(name: str) -> Learned:
    """One worker. What two gather from each other is one batch here: the tickets that they take at the same time."""
    gathers = CASES[name][1]["objective"].get("gather", False)
    return learn(name, at_once if gathers else lambda tables: tables)


def at_once(tables: list[pa.Table]) -> list[pa.Table]:
    return [pa.concat_tables(tables[first : first + WORKERS]) for first in range(0, len(tables), WORKERS)]


def distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


@pytest.mark.parametrize("name", CASES)
def test_two_workers_give_the_gradient_of_one(by_two: list[dict[str, Learned]], name: str) -> None:
    expected = alone(name)
    assert expected.gradient.norm() > 1e-4
    for rank in range(WORKERS):
        found = by_two[rank][name]
        assert distance(found.gradient, expected.gradient) < 1e-5
        learned = {name: value for name, value in expected.metrics.items() if name not in MEASURED}
        assert {name: found.metrics[name] for name in learned} == pytest.approx(learned, rel=1e-5, abs=1e-6)
        rows = {name: count for name, count in found.counts.items() if name != "padding_calls"}
        assert {name: count for name, count in expected.counts.items() if name in rows} == rows
        assert found.counts["pairs_kept"] == KEPT
    # And both have taken the same step, and know the same of it.
    assert torch.equal(by_two[0][name].policy, by_two[1][name].policy)
    assert by_two[0][name].metrics == by_two[1][name].metrics
    assert (DIVERGENCE in by_two[0][name].metrics) == ("reference" in CASES[name][1])


def test_every_objective_is_among_them() -> None:
    kinds = {objective.model_fields["kind"].default for objective in OBJECTIVES}
    assert {groups["objective"]["kind"] for _, groups in CASES.values()} == kinds


def test_gathering_is_another_gradient_than_keeping_apart() -> None:
    """Else the cases above would say nothing of it."""
    gathered, apart = alone("rpo gathered, step-wise"), alone("rpo on step-wise pairs")
    assert distance(gathered.gradient, apart.gradient) > 0.01
    assert not math.isclose(gathered.metrics["loss"], apart.metrics["loss"], rel_tol=1e-3)
