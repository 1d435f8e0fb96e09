"""Every objective at the learner: its gradient is that of the definition, row by row. And a new one, from one file."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError, create_model
from torch import Tensor

from rayalign.cli import parse
from rayalign.config import RunConfig
from rayalign.learning.batches import kept_rows, micro_batches
from rayalign.learning.learner import Learner, make_accelerator
from rayalign.learning.noising import draw_noise, draw_timesteps, weights_by_step
from rayalign.objectives import table
from tests.learning.learners import SOURCES, learner_of, run_of, step_on
from tests.learning.tables import embedded, pairs
from tests.toys import model_of, nudged

CPU = torch.device("cpu")
STATUSES = ("kept", "tie", "kept", "kept", "score_failed", "kept", "kept")
EARLY = {"timesteps": {"kind": "early", "gamma": 0.7}, "reward_scale": "snr"}


class Row:
    """One row, and what each weight set makes of it, by the definitions."""

    def __init__(self, learner: Learner, row: pa.Table, draw: int, key: tuple[int, int, int] | None = None) -> None:
        self.learner, self.model = learner, learner.model
        self.batch = micro_batches(row, 1, self.model.kernel, CPU)[0]
        self.text = self.model.encode(self.batch.prompts)
        self.t = self.batch.timestep
        if self.batch.rows == "clean":
            config = learner.run
            self.t = draw_timesteps(
                config.seed, [key or self.batch.keys[0]], draw, config.timesteps, self.model.kernel, CPU
            )
            self.noise = draw_noise(config.seed, self.batch.keys, draw, self.batch.latents["winner"])

    def asked(self, x_t: Tensor, weights: Any) -> Tensor:
        if weights == "policy":
            return self.model.denoise(x_t, self.t, self.text, weights)
        with torch.no_grad():
            return self.model.denoise(x_t, self.t, self.text, weights)

    def log_prob(self, side: str, weights: Any) -> Tensor:
        """Mean over elements of the log density of a transition."""
        own = self.batch.rows == "trajectory" and side == "loser"
        x_t = self.batch.latents["x_t_loser" if own else "x_t"]
        answer = self.asked(x_t, weights)
        mean, std, _ = self.model.kernel.transition(answer, x_t, self.t, self.batch.timestep_prev)
        return torch.distributions.Normal(mean, std.item()).log_prob(self.batch.latents[side]).mean()

    def error(self, side: str, weights: Any) -> Tensor:
        """Mean squared error of the noise that was added to an image."""
        abar = self.model.kernel.abar_T[self.t]  # type: ignore[attr-defined]
        x_t = abar.sqrt() * self.batch.latents[side] + (1 - abar).sqrt() * self.noise
        return (self.asked(x_t, weights) - self.noise).square().mean()

    def h(self, side: str) -> Tensor:
        """Implicit reward over beta."""
        if self.batch.rows == "clean":
            return -0.5 * (self.error(side, "policy") - self.error(side, "reference"))
        return self.log_prob(side, "policy") - self.log_prob(side, "reference")

    @property
    def scale(self) -> float:
        """1 to 2 by sqrt((1 - abar) / abar), min-max over the schedule; 1 where the run does not scale."""
        if self.learner.run.reward_scale == "constant":
            return 1.0
        abar = self.model.kernel.abar_T.double()  # type: ignore[attr-defined]
        noise = ((1 - abar) / abar).sqrt()
        return 1 + ((noise[self.t] - noise[0]) / (noise[-1] - noise[0])).item()

    @property
    def weight(self) -> float:
        if self.batch.rows == "clean":
            return 1.0
        steps = self.learner.run.pairs.steps_on(20)
        return weights_by_step(self.learner.run.timesteps, steps)[self.batch.steps[0]]


def dpo(rows: list[Row], beta: float) -> Tensor:
    return sum_of([-row.weight * F.logsigmoid(row.scale * beta * (row.h("winner") - row.h("loser"))) for row in rows])


def rpo(rows: list[Row], beta: float, tau: float = 0.5) -> Tensor:
    """One contrast group: each winner against each loser, prompts and images alike in the distance."""
    losses = []
    for one in rows:
        mine = one.batch.embeddings
        far = []
        for other in rows:
            theirs = other.batch.embeddings
            prompt = 1 - mine.prompt_BD[0] @ theirs.prompt_BD[0]  # type: ignore[union-attr]
            image = 1 - mine.winner_BD[0] @ theirs.loser_BD[0]  # type: ignore[union-attr]
            far.append((prompt + image) / 2)
        weights = (-torch.stack(far) / tau).exp()
        against = [-F.logsigmoid(one.scale * beta * (one.h("winner") - other.h("loser"))) for other in rows]
        losses.append(one.weight * (weights / weights.sum() * torch.stack(against)).sum())
    return sum_of(losses)


def sft(rows: list[Row], beta: float) -> Tensor:
    losses = []
    for row in rows:
        losses.append(row.error("winner", "policy") if row.batch.rows == "clean" else -row.log_prob("winner", "policy"))
    return sum_of([row.weight * loss for row, loss in zip(rows, losses, strict=True)])


def ddpo(rows: list[Row], beta: float, clip: float = 0.5) -> Tensor:
    losses = []
    for row in rows:
        ratio = (row.log_prob("winner", "policy") - row.batch.log_prob[0]).exp()
        advantage = row.batch.advantage[0]
        losses.append(-row.weight * torch.minimum(advantage * ratio, advantage * ratio.clamp(1 - clip, 1 + clip)))
    return sum_of(losses)


def sum_of(values: list[Tensor]) -> Tensor:
    return torch.stack([value.reshape(()) for value in values]).sum()


DEFINITIONS: dict[str, Callable[..., Tensor]] = {"dpo": dpo, "rpo": rpo, "sft": sft, "ddpo": ddpo}
BETA = {"stepwise": 0.1, "trajectory": 0.1, "final": 50.0, "sample": 0.0}
SETTINGS: dict[str, dict[str, Any]] = {"dpo": {"ratio_clip": None}, "rpo": {"tau": 0.5}, "ddpo": {"ratio_clip": 0.5}}
CASES = [
    (kind, source)
    for kind in DEFINITIONS
    for source in SOURCES
    if SOURCES[source][0] in {one.model_fields["kind"].default: one for one in table.OBJECTIVES}[kind].rows
]


def groups_of(learner: Learner, tables: list[pa.Table], draws: int) -> list[list[Row]]:
    """Kept rows that are set against each other (all of one step and ticket), for each draw; else each alone."""
    found = []
    for ticket in tables:
        kept = kept_rows(ticket)
        for draw in range(draws):
            by_step: dict[int, list[Row]] = {}
            for number in range(len(kept)):
                row = kept.slice(number, 1)
                key = (row["iteration"][0].as_py(), row["slot"][0].as_py(), -1) if learner.objective.contrasts else None
                by_step.setdefault(row["step"][0].as_py(), []).append(Row(learner, row, draw, key))
            found += list(by_step.values())
    return found


@pytest.mark.parametrize(("kind", "source"), CASES, ids=lambda one: one)
def test_the_gradient_is_that_of_the_definition(kind: str, source: str) -> None:
    """Two tickets, dropped rows among them, early timesteps and the SNR scale; of finished images two draws a pair."""
    objective = {"kind": kind} | SETTINGS.get(kind, {})
    if kind in ("dpo", "rpo"):
        objective["beta"] = BETA[source]
    draws = 2 if source == "final" else 1
    changed = {"pairs": {"draws": 2}} if source == "final" else {}
    learner = learner_of(source=source, objective=objective, train={"micro_batch": 8}, **changed, **EARLY)
    rows = SOURCES[source][0]
    tables = [
        embedded(pairs(learner.model, 20 + slot, STATUSES, rows, slot=[slot] * len(STATUSES)), slot) for slot in (0, 1)
    ]
    groups = groups_of(learner, tables, draws)
    total = sum_of([DEFINITIONS[kind](group, BETA[source]) for group in groups]) / sum(len(group) for group in groups)
    expected = torch.cat([grad.flatten() for grad in torch.autograd.grad(total, learner.model.weights.parameters())])
    found: list[Tensor] = []

    def note(*_: Any) -> None:
        grads = [parameter.grad for parameter in learner.model.weights.parameters()]
        found.append(torch.cat([grad.flatten() for grad in grads]))  # type: ignore[union-attr]

    learner.optimizer.optimizer.register_step_pre_hook(note)
    step_on(learner, tables)
    assert expected.norm() > 1e-4
    assert (found[0] - expected).norm() / expected.norm() < 1e-4


HINGE = '''
from typing import ClassVar, Literal

from pydantic import Field

from rayalign.objectives.base import DEFAULT_BETA, Losses, Objective, View
from rayalign.settings import AboveZero


class Hinge(Objective):
    """Pairs are pushed apart until they are `gap` apart, and no further."""

    metrics: ClassVar[tuple[str, ...]] = ("implicit_reward", "accuracy", "open")
    kind: Literal["hinge"] = "hinge"
    gap: AboveZero = Field(1.0, description="margin that is enough")

    def losses(self, view: View) -> Losses:
        from rayalign.algorithms.dpo import prefers_winner

        h_B = DEFAULT_BETA[view.rows] * view.implicit_rewards().margin_B
        short_B = (self.gap - view.scale_B * h_B).relu()
        details = {"implicit_reward": h_B, "accuracy": prefers_winner(h_B), "open": (short_B > 0).float()}
        return short_B, {name: value.detach() for name, value in details.items()}
'''


@pytest.fixture
def hinge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The one new file, and the one line of the table."""
    file = tmp_path / "hinge.py"
    file.write_text(HINGE)
    spec = importlib.util.spec_from_file_location("hinge", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "hinge", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(table, "OBJECTIVES", (*table.OBJECTIVES, module.Hinge))
    return module


@pytest.mark.usefixtures("hinge")
def test_a_new_objective_is_one_file_and_one_line() -> None:
    """`RunConfig` once more, with the longer table: its settings, its hash, the command line and training follow."""
    wider = create_model("WiderConfig", __base__=RunConfig, objective=(table.union(), table.OBJECTIVES[0]()))
    tree = run_of().model_dump(mode="json") | {"objective": {"kind": "hinge", "gap": 0.5}}
    with pytest.raises(ValidationError, match="does not match any of the expected tags"):
        RunConfig.model_validate(tree)
    config = wider.model_validate(tree)
    assert (config.objective.kind, config.objective.gap) == ("hinge", 0.5)
    assert config.hash() != run_of().hash()
    on_the_line = parse("", tree, ["--objective.kind", "hinge", "--objective.gap", "0.75"], wider)
    assert on_the_line.objective.gap == 0.75  # type: ignore[union-attr]
    with pytest.raises(ValidationError, match="greater than 0"):
        wider.model_validate(tree | {"objective": {"kind": "hinge", "gap": 0}})
    model = model_of("stub", pairs=config.pairs.model_dump())
    model.weights.load("policy", nudged(model, 1, scale=0.3))
    learner = Learner(model, config, make_accelerator(config.train, "cpu"))
    before = model.weights.state("policy")
    losses = []
    for _ in range(4):
        step_on(learner, [pairs(model, 1, STATUSES)])
        metrics, counts, _ = learner.finish_iteration()
        losses.append(metrics["loss"])
        assert counts["optimizer_steps"] == 1
        assert 0 < metrics["open"] <= 1
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]
    assert any((value != before[name]).any() for name, value in model.weights.state("policy").items())
    assert any(name.startswith("accuracy_by_tenth/") for name in metrics)
