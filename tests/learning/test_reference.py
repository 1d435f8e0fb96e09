from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
import torch

from rayalign.config import CopiedReference, FixedReference
from rayalign.learning.batches import kept_rows, micro_batches
from rayalign.learning.checkpoint import Checkpoint
from rayalign.learning.checkpoint_store import CheckpointStore
from rayalign.learning.learner import Learner
from rayalign.learning.optimizer import optimizer_arrays, restore_optimizer
from rayalign.learning.reference import ReferenceRule
from rayalign.learning.views import Winners
from tests.learning.learners import SOURCES, learner_of, same_bits, step_on
from tests.learning.tables import pairs
from tests.toys import nudged

CPU = torch.device("cpu")
EVERY, STEPS = 2, 12
NO_GATE: dict[str, Any] = {"kind": "copied", "every": EVERY, "max_divergence": None}


def start(source: str = "stepwise", tuning: str = "lora", **reference: Any) -> Learner:
    """On the stub, from the initial model, with steps that can be seen."""
    objective = {"kind": "dpo", "ratio_clip": None, "beta": 500.0 if source == "final" else 1.0}
    changes = {"objective": objective, "train": {"lr": 0.005}, "model": {"tuning": {"kind": tuning}}}
    return learner_of(start=None, source=source, reference=reference, **changes)


def ticket(learner: Learner, source: str = "stepwise") -> pa.Table:
    """The same at every step, so that all pull one way."""
    return pairs(learner.model, 1, ("kept", "tie", "kept", "kept", "kept"), SOURCES[source][0])


def train(learner: Learner, steps: int, source: str = "stepwise") -> list[dict[str, float]]:
    """An iteration each; what each logs."""
    logged = []
    for _ in range(steps):
        step_on(learner, [ticket(learner, source)])
        logged.append(learner.finish_iteration()[0])
    return logged


class Ungated(NamedTuple):
    """A run without a gate."""

    tuning: str
    measured: list[float]  # the divergence of each candidate
    states: list[dict[str, Any]]  # the policy after each step, from 0


@pytest.fixture(scope="module", params=["lora", "full"])
def ungated(request: pytest.FixtureRequest) -> Ungated:
    learner = start(tuning=request.param, **NO_GATE)
    states, measured = [learner.model.weights.state("policy")], []
    for step in range(1, STEPS + 1):
        metrics = train(learner, 1)[0]
        states.append(learner.model.weights.state("policy"))
        if step % EVERY == 0:
            measured.append(metrics["reference/divergence"])
            assert metrics["reference/copies"] == step // EVERY
    return Ungated(request.param, measured, states)


def test_without_a_gate_the_divergence_keeps_growing(ungated: Ungated) -> None:
    measured = ungated.measured
    assert len(measured) == STEPS // EVERY
    assert measured == sorted(measured)
    assert measured[0] > 0
    assert measured[-1] > 10 * measured[0]


def test_the_divergence_is_the_candidates_distance_from_the_initial_model() -> None:
    learner = start(**NO_GATE | {"num_winners": 1})
    metrics = train(learner, EVERY)[-1]
    model = learner.model
    # Two micro-batches of two kept pairs; one winner of the last, which is the ticket's third kept pair.
    kept = kept_rows(ticket(learner))
    last = micro_batches(kept.slice(2, 1), 1, model.kernel, CPU)[0]
    at = last.latents["x_t"], last.timestep, model.encode(last.prompts)
    with torch.no_grad():
        expected = (model.denoise(*at, "policy") - model.denoise(*at, "initial")).square().mean().item()
    assert metrics["reference/divergence"] == pytest.approx(expected, rel=1e-5)


def test_of_a_dataset_it_is_how_much_worse_the_winners_are_denoised() -> None:
    learner = start("final", **NO_GATE)
    learner._on_policy = False
    metrics = train(learner, EVERY, "final")[-1]
    kept = kept_rows(ticket(learner, "final"))
    view = learner.view(micro_batches(kept.slice(2), 2, learner.model.kernel, CPU)[0])
    found = view.winners()
    at = found.x_t, found.timestep, found.text
    with torch.no_grad():
        policy, initial = learner.model.denoise(*at, "policy"), learner.model.denoise(*at, "initial")
    expected = ((found.target - policy).square() - (found.target - initial).square()).mean().item()
    assert metrics["reference/divergence"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("first_past", [1, 3, 4])
def test_the_gate_freezes_at_the_first_candidate_past_delta(
    ungated: Ungated, first_past: int
) -> None:
    """Delta between two candidates that were measured without a gate: up to there both runs are one."""
    tuning, measured, states = ungated
    delta = (measured[first_past - 1] + measured[first_past]) / 2
    learner = start(tuning=tuning, **NO_GATE | {"max_divergence": delta})
    logged = train(learner, STEPS)
    closes = EVERY * (first_past + 1)
    frozen = [metrics["reference/frozen"] for metrics in logged]
    assert frozen == [0.0] * (closes - 1) + [1.0] * (STEPS - closes + 1)
    assert logged[-1]["reference/frozen_at_step"] == closes
    assert logged[-1]["reference/copies"] == first_past
    assert logged[closes - 1]["reference/divergence"] == pytest.approx(measured[first_past], rel=1e-5)
    # The reference is the last copy that was let through, bit for bit; the candidate past delta was not installed.
    weights = learner.model.weights
    assert same_bits(weights.state("reference"), states[closes - EVERY])
    # Training goes on against it.
    assert not same_bits(weights.state("policy"), states[closes])
    assert logged[-1]["reference/divergence"] == logged[closes - 1]["reference/divergence"]


def test_reinit_goes_back_to_the_initial_model(ungated: Ungated) -> None:
    tuning, measured, _ = ungated
    delta = (measured[1] + measured[2]) / 2
    learner = start(tuning=tuning, **NO_GATE | {"max_divergence": delta, "on_exceed": "reinit"})
    weights, model = learner.model.weights, learner.model
    train(learner, 3 * EVERY - 1)
    x_t = torch.randn((2, *model.latent_shape), generator=torch.Generator().manual_seed(5))
    at = x_t, torch.tensor([501, 51]), model.encode(["a", "b"])
    for back in (False, True):
        metrics = train(learner, 1)[-1] if back else {}
        with torch.no_grad():
            assert torch.equal(model.denoise(*at, "reference"), model.denoise(*at, "initial")) == back
    assert same_bits(weights.state("reference"), weights.state("initial"))
    assert (metrics["reference/copies"], metrics["reference/reinits"], metrics["reference/frozen"]) == (2, 1, 0)
    assert "reference/frozen_at_step" not in metrics
    # The policy is where it was, so the next candidate is past delta too.
    assert train(learner, EVERY)[-1]["reference/reinits"] == 2


def continued(learner: Learner, folder: Path) -> Learner:
    """A new learner from a checkpoint of this one, by way of the disk."""
    weights = learner.model.weights
    state = Checkpoint(
        1,
        {},
        weights.state("policy"),
        weights.state("reference"),
        optimizer_arrays(learner.optimizer),
        rules={"reference": learner.reference.state()},
    )
    store = CheckpointStore.at(str(folder))
    store.save(state)
    found = store.load(1)
    fresh = start(tuning=learner.run.model.tuning.kind, **learner.run.reference.model_dump())
    fresh.model.weights.load("policy", found.policy)
    fresh.model.weights.load("reference", found.reference)  # type: ignore[arg-type]
    restore_optimizer(fresh.optimizer, found.optimizer)
    fresh.reference.restore(found.rules["reference"])
    return fresh


@pytest.mark.parametrize("stopped_after", [3, 6, 7])
def test_a_freeze_survives_a_resume_and_so_does_the_count_to_the_next_copy(
    ungated: Ungated, tmp_path: Path, stopped_after: int
) -> None:
    """The gate closes at step 6: stopped before it in mid-period, at it, after it."""
    tuning, measured, _ = ungated
    gated = NO_GATE | {"tuning": tuning, "max_divergence": (measured[1] + measured[2]) / 2}
    whole, first = start(**gated), start(**gated)
    logged = train(whole, STEPS)
    train(first, stopped_after)
    second = continued(first, tmp_path)
    assert second.reference.state() == first.reference.state()
    again = train(second, STEPS - stopped_after)
    assert again[-1]["reference/frozen_at_step"] == 6
    for name, value in again[-1].items():
        assert value == logged[-1][name]
    for name in ("policy", "reference"):
        assert same_bits(second.model.weights.state(name), whole.model.weights.state(name))  # type: ignore[arg-type]


def test_a_fixed_reference_stays_and_logs_nothing() -> None:
    learner = start(kind="fixed")
    before = learner.model.weights.state("reference")
    logged = train(learner, 3)
    assert same_bits(learner.model.weights.state("reference"), before)
    assert not any(name.startswith("reference/") for metrics in logged for name in metrics)


def test_a_step_that_was_skipped_does_not_count() -> None:
    learner = start(**NO_GATE)
    train(learner, 1)
    step_on(learner, [pairs(learner.model, 9, ("tie", "tie"))])
    assert (learner.reference.steps, learner.reference.copies) == (1, 0)
    train(learner, 1)
    assert (learner.reference.steps, learner.reference.copies) == (2, 1)


def test_measuring_is_in_no_count_of_calls() -> None:
    learner = start(**NO_GATE)
    for _ in range(EVERY):
        step_on(learner, [ticket(learner)])
    assert learner.reference.copies == 1
    assert learner.finish_iteration()[1]["policy_calls"] == 4 * EVERY
    assert learner.model.calls["initial"] == 0


class Sums:
    """Plays the exchange with another worker: adds what that one would say."""

    def __init__(self, total: float, count: int) -> None:
        self.total, self.count, self.asked = total, count, 0

    def __call__(self, total: float, count: int) -> float | None:
        self.asked += 1
        count += self.count
        return (total + self.total) / count if count else None


def rule(mean: Sums, **changes: Any) -> ReferenceRule:
    learner = learner_of(start=1)
    return ReferenceRule(CopiedReference(every=1, **changes), learner.model, mean)


def test_a_worker_without_winners_takes_part_and_decides_alike() -> None:
    """Of four winners of the other worker the divergence is 0.5 in the mean."""
    freezes, copies = rule(Sums(2.0, 4), max_divergence=0.4), rule(Sums(2.0, 4), max_divergence=0.6)
    for one in (freezes, copies):
        one.after_step(None)
        assert one.divergence == 0.5
    assert (freezes.frozen_at, freezes.copies) == (1, 0)
    assert (copies.frozen_at, copies.copies) == (None, 1)


def test_where_nobody_has_winners_the_copy_waits() -> None:
    nobody = rule(Sums(0.0, 0), max_divergence=None)
    nobody.after_step(None)
    assert (nobody.steps, nobody.copies, nobody.divergence) == (1, 0, None)
    text = nobody.model.encode(["a"])
    nobody.after_step(Winners(torch.randn(1, *nobody.model.latent_shape), torch.tensor([501]), text, None))
    assert (nobody.steps, nobody.copies) == (2, 1)
    assert nobody.divergence is not None
    assert nobody.divergence > 0


def test_a_frozen_rule_asks_nobody() -> None:
    """Every worker knows that it is frozen, so none waits for an answer."""
    mean = Sums(9.0, 1)
    frozen = rule(mean, max_divergence=0.1)
    for _ in range(3):
        frozen.after_step(None)
    assert (mean.asked, frozen.frozen_at, frozen.steps) == (1, 1, 3)


def test_a_state_of_an_older_run_leaves_what_it_does_not_know() -> None:
    learner = learner_of(start=None)
    fresh = ReferenceRule(FixedReference(), learner.model, Sums(0.0, 0))
    fresh.restore({})
    assert fresh.state() == {"steps": 0, "copies": 0, "reinits": 0, "frozen_at": None, "divergence": None}


def test_on_a_toy_too_the_divergence_grows_until_the_gate_closes() -> None:
    """toy-sdxl, a copy every step: without a gate it passes K's delta of 0.002 and goes on; with it it stays there."""
    settings = {"objective": {"kind": "dpo", "ratio_clip": None}, "train": {"lr": 3e-3, "micro_batch": 4}}
    measured = {}
    for delta in (None, 0.002):
        reference = {"kind": "copied", "every": 1, "max_divergence": delta}
        learner = learner_of("toy-sdxl", None, reference=reference, **settings)
        learner.model.weights.load("policy", nudged(learner.model, 1, scale=1e-3))
        table = pairs(learner.model, 1, ("kept",) * 4)
        logged = []
        for _ in range(8):
            step_on(learner, [table])
            logged.append(learner.finish_iteration()[0])
        measured[delta] = [metrics["reference/divergence"] for metrics in logged]
    ungated, gated = measured[None], measured[0.002]
    assert ungated == sorted(ungated)
    assert ungated[0] < 0.002 < ungated[-1]
    closes = next(step for step, value in enumerate(ungated, 1) if value > 0.002)
    assert logged[-1]["reference/frozen_at_step"] == closes
    assert gated[: closes - 1] == pytest.approx(ungated[: closes - 1], rel=1e-5)
    assert set(gated[closes - 1 :]) == {gated[-1]}
