from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rayalign.algorithms.kernel import log_prob
from rayalign.learning.batches import PairBatch, blank, to_batch
from rayalign.learning.learner import Learner
from rayalign.learning.views import RenoisedView, TransitionView
from rayalign.models.text_to_image import TextToImage
from rayalign.objectives.base import ImplicitRewards
from tests.learning.learners import SOURCES, learner_of
from tests.learning.tables import WIDTH, embedded, pairs

CPU = torch.device("cpu")
SIZE = 3
SIDES = ("winner", "loser")


@pytest.fixture(scope="module")
def learner() -> Learner:
    """Policy and reference both away from the base, and apart."""
    learner = learner_of(start=2)
    learner.model.weights.copy("policy", "reference")
    learner.model.weights.load("policy", learner_of(start=1).model.weights.state("policy"))
    return learner


def view_of(learner: Learner, source: str, **columns: Any) -> TransitionView | RenoisedView:
    table = pairs(learner.model, 4, ("kept",) * SIZE, SOURCES[source][0], **columns)
    return learner.view(to_batch(table, learner.model.kernel, CPU))


def gaussian(model: TextToImage, batch: PairBatch, x_t: Tensor, weights: Any) -> tuple[Tensor, Tensor]:
    """Mean and std of the transition from x_t."""
    answer = model.denoise(x_t, batch.timestep, model.encode(batch.prompts), weights)
    mean, std, _ = model.kernel.transition(answer, x_t, batch.timestep, batch.timestep_prev)
    return mean, std


@torch.no_grad()
def ratio_of(model: TextToImage, batch: PairBatch, x_t: str, x_prev: str) -> Tensor:
    """log pi_th - log pi_ref of one side, in float64 from the two densities."""
    policy, reference = (gaussian(model, batch, batch.latents[x_t], name) for name in ("policy", "reference"))
    sample = batch.latents[x_prev].double()
    return log_prob(sample, policy[0].double(), policy[1].double()) - log_prob(
        sample, reference[0].double(), reference[1].double()
    )


@torch.no_grad()
def error_of(model: TextToImage, view: RenoisedView, side: str, noise: Tensor, weights: Any) -> Tensor:
    """mean (noise - eps)^2 of an image under one weight set; the stub predicts the noise."""
    abar = model.kernel.abar_T[view.t_B].reshape(-1, 1, 1, 1)  # type: ignore[attr-defined]
    x_t = abar.sqrt() * view.batch.latents[side] + (1 - abar).sqrt() * noise
    answer = model.denoise(x_t, view.t_B, model.encode(view.batch.prompts), weights)
    return ((noise - answer) ** 2).flatten(1).mean(1)


def assert_rewards(found: ImplicitRewards, won: Tensor, lost: Tensor) -> None:
    scale = torch.maximum(won.abs(), lost.abs()).max().item()
    assert scale > 1e-3
    torch.testing.assert_close(found.winner_B.double(), won.double(), rtol=1e-4, atol=1e-5 * scale)
    torch.testing.assert_close(found.loser_B.double(), lost.double(), rtol=1e-4, atol=1e-5 * scale)
    torch.testing.assert_close(found.margin_B.double(), (won - lost).double(), rtol=1e-4, atol=2e-5 * scale)


def test_stepwise_pairs_share_x_t_and_so_the_calls(learner: Learner) -> None:
    view, model = view_of(learner, "stepwise"), learner.model
    model.calls.clear()
    found = view.implicit_rewards()
    assert model.calls == {"policy": SIZE, "reference": SIZE}
    sides = (ratio_of(model, view.batch, "x_t", side) for side in SIDES)
    assert_rewards(found, *sides)


def test_each_side_of_whole_trajectories_has_its_own_x_t(learner: Learner) -> None:
    view, model = view_of(learner, "trajectory"), learner.model
    model.calls.clear()
    found = view.implicit_rewards()
    assert model.calls == {"policy": 2 * SIZE, "reference": 2 * SIZE}
    won, lost = ratio_of(model, view.batch, "x_t", "winner"), ratio_of(model, view.batch, "x_t_loser", "loser")
    assert_rewards(found, won, lost)
    # From the winner's x_t the loser would be another story.
    assert (lost - ratio_of(model, view.batch, "x_t", "loser")).abs().min() > 1e-3


def test_finished_images_are_renoised_with_one_noise_and_one_timestep_a_pair(learner: Learner) -> None:
    model = learner.model
    view = view_of(learner, "final")
    assert isinstance(view, RenoisedView)
    abar = model.kernel.abar_T[view.t_B].reshape(-1, 1, 1, 1)  # type: ignore[attr-defined]
    noises = [(view._noisy[side] - abar.sqrt() * view.batch.latents[side]) / (1 - abar).sqrt() for side in SIDES]
    torch.testing.assert_close(noises[0], noises[1], atol=1e-3, rtol=0)
    model.calls.clear()
    found = view.implicit_rewards()
    assert model.calls == {"policy": 2 * SIZE, "reference": 2 * SIZE}
    noise = view._target["winner"]
    assert torch.equal(noise, view._target["loser"])
    sides = [
        -0.5 * (error_of(model, view, side, noise, "policy") - error_of(model, view, side, noise, "reference"))
        for side in SIDES
    ]
    assert_rewards(found, *sides)


@pytest.mark.parametrize("source", ["stepwise", "trajectory", "final"])
def test_gradients_reach_the_policy_alone(learner: Learner, source: str) -> None:
    found = view_of(learner, source).implicit_rewards()
    for value in found:
        assert value.shape == (SIZE,)
        assert value.requires_grad
    found.margin_B.sum().backward()
    policy = learner.model.weights.parameters("policy")
    assert any(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in policy)
    assert all(parameter.grad is None for parameter in learner.model.weights.parameters("reference"))
    learner.optimizer.zero_grad()


@pytest.mark.parametrize("source", ["stepwise", "trajectory", "sample"])
def test_a_transitions_winner_loss_is_its_negative_log_probability_up_to_a_constant(
    learner: Learner, source: str
) -> None:
    view, model = view_of(learner, source), learner.model
    model.calls.clear()
    loss = view.winner_loss()
    assert model.calls == {"policy": SIZE}
    mean, std = gaussian(model, view.batch, view.batch.latents["x_t"], "policy")
    density = log_prob(view.batch.latents["winner"], mean, std)
    constant = -std.log() - 0.5 * torch.tensor(2 * torch.pi).log()
    torch.testing.assert_close(loss, constant - density, rtol=1e-4, atol=1e-4)


def test_an_images_winner_loss_is_how_well_it_is_denoised(learner: Learner) -> None:
    view = view_of(learner, "final")
    assert isinstance(view, RenoisedView)
    learner.model.calls.clear()
    loss = view.winner_loss()
    assert learner.model.calls == {"policy": SIZE}
    expected = error_of(learner.model, view, "winner", view._target["winner"], "policy")
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)


def test_a_sampled_transition_has_its_log_probability_now_and_then(learner: Learner) -> None:
    view = view_of(learner, "sample", log_prob=[-1.0, -2.0, -3.0], advantage=[1.0, 0.0, -1.0])
    now, then = view.log_probs()
    mean, std = gaussian(learner.model, view.batch, view.batch.latents["x_t"], "policy")
    torch.testing.assert_close(now, log_prob(view.batch.latents["winner"], mean, std), rtol=1e-5, atol=1e-5)
    assert now.requires_grad
    assert then.tolist() == [-1.0, -2.0, -3.0]
    assert view.advantage().tolist() == [1.0, 0.0, -1.0]


def test_what_rows_do_not_have_is_an_error(learner: Learner) -> None:
    with pytest.raises(ValueError, match="finished images have no log-probability"):
        view_of(learner, "final").log_probs()
    with pytest.raises(ValueError, match="the pairs carry no embeddings; the annotate pool was left out"):
        view_of(learner, "stepwise").embeddings()
    table = embedded(pairs(learner.model, 4, ("kept",) * SIZE), 1)
    found = learner.view(to_batch(table, learner.model.kernel, CPU)).embeddings()
    assert all(values.shape == (SIZE, WIDTH) for values in found)


def test_winners_for_the_divergence(learner: Learner) -> None:
    """On-policy images are measured by the distance of predictions, those of a dataset by how they are denoised."""
    view = view_of(learner, "stepwise")
    found = view.winners()
    assert torch.equal(found.x_t, view.batch.latents["x_t"])
    assert torch.equal(found.timestep, view.batch.timestep)
    assert found.target is None
    drawn = view_of(learner, "final")
    assert isinstance(drawn, RenoisedView)
    assert drawn.winners().target is None
    assert torch.equal(drawn.winners().x_t, drawn._noisy["winner"])
    learner._on_policy = False
    try:
        offline = view_of(learner, "final")
        assert isinstance(offline, RenoisedView)
        assert torch.equal(offline.winners().target, offline._target["winner"])  # type: ignore[arg-type]
    finally:
        learner._on_policy = True


def test_a_row_that_only_keeps_its_place_is_no_winner(learner: Learner) -> None:
    """Where rows are gathered, dropped ones stay as zeros."""
    for source in ("stepwise", "final"):
        table = pairs(learner.model, 4, ("kept", "tie", "kept"), SOURCES[source][0])
        view = learner.view(blank(to_batch(table, learner.model.kernel, CPU)))
        found = view.winners()
        assert len(found.x_t) == len(found.timestep) == len(found.text) == 2
        assert torch.equal(found.timestep, view.t_B[[0, 2]])
        assert found.x_t.abs().amax((1, 2, 3)).min() > 1


def hand_scale(model: TextToImage, t_B: Tensor) -> Tensor:
    """1 + min-max of sqrt((1 - abar) / abar) over all timesteps."""
    abar = model.kernel.abar_T.double()  # type: ignore[attr-defined]
    noise = ((1 - abar) / abar).sqrt()
    return 1 + (noise[t_B] - noise[0]) / (noise[-1] - noise[0])


@pytest.mark.parametrize("source", ["stepwise", "trajectory", "final"])
def test_the_snr_scale_is_inside_the_sigmoid(source: str) -> None:
    objective = {"kind": "dpo", "beta": 20.0, "ratio_clip": None}
    plain, scaled = (learner_of(source=source, objective=objective, reward_scale=kind) for kind in ("constant", "snr"))
    with_scale, without = view_of(scaled, source), view_of(plain, source)
    assert torch.equal(without.scale_B, torch.ones(SIZE))
    expected = hand_scale(scaled.model, with_scale.t_B)
    assert expected.max() > 1.05
    torch.testing.assert_close(with_scale.scale_B.double(), expected, atol=1e-5, rtol=0)
    loss, details = scaled.objective.losses(with_scale)
    h = plain.objective.losses(without)[1]["implicit_reward"]
    torch.testing.assert_close(details["implicit_reward"], h, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(loss, -torch.nn.functional.logsigmoid(expected.float() * h), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("source", ["stepwise", "final"])
def test_so_it_is_in_the_contrast(source: str) -> None:
    """Rows of a group share their timestep, hence the scale: it stands before every h_i - h_j."""
    settings = {"kind": "rpo", "tau": 0.5}
    losses = []
    for kind, beta in (("snr", 20.0), ("constant", 20.0)):
        one = learner_of(source=source, objective=settings | {"beta": beta}, reward_scale=kind)
        rows = SOURCES[source][0]
        same = {} if rows == "clean" else {"step": [10] * SIZE, "timestep": [451] * SIZE, "timestep_prev": [401] * SIZE}
        table = embedded(pairs(one.model, 4, ("kept",) * SIZE, rows, **same), 1)
        view = one.view(to_batch(table, one.model.kernel, CPU))
        assert len(set(view.t_B.tolist())) == 1
        losses.append((one.objective.losses(view)[0], view))
    scale = hand_scale(losses[0][1].model, losses[0][1].t_B)[0].item()
    # One factor for all is a larger beta.
    larger = learner_of(source=source, objective=settings | {"beta": 20.0 * scale})
    torch.testing.assert_close(losses[0][0], larger.objective.losses(losses[1][1])[0], atol=1e-5, rtol=1e-5)
    assert (losses[0][0] - losses[1][0]).abs().max() > 1e-4


@pytest.mark.parametrize(("source", "kind"), [("stepwise", "sft"), ("final", "sft"), ("sample", "ddpo")])
def test_where_there_is_no_sigmoid_it_changes_nothing(source: str, kind: str) -> None:
    losses = []
    for scale in ("constant", "snr"):
        one = learner_of(source=source, objective={"kind": kind}, reward_scale=scale)
        losses.append(one.objective.losses(view_of(one, source))[0])
    assert torch.equal(*losses)
