from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rayalign.algorithms.dpo import dpo_loss
from rayalign.algorithms.kernel import log_prob
from rayalign.algorithms.tailorpo import clip_log_ratio, log_ratio, margin

BETA = 0.7
SHAPE = (5, 4, 3, 2)


def example(scale: float = 0.3) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """winner, loser, mean_policy, mean_reference, std in float64; the means `scale` apart."""
    generator = torch.Generator().manual_seed(3)
    draw = lambda: torch.randn(SHAPE, generator=generator, dtype=torch.float64)  # noqa: E731
    mean_reference, std = draw(), torch.linspace(0.05, 1.2, SHAPE[0], dtype=torch.float64)
    spread = std.reshape(-1, 1, 1, 1)
    winner, loser = mean_reference + spread * draw(), mean_reference + spread * draw()
    mean_policy = (mean_reference + scale * spread * draw()).requires_grad_()
    return winner, loser, mean_policy, mean_reference, std


def tailorpo_loss(
    winner: Tensor,
    loser: Tensor,
    policy: Tensor,
    reference: Tensor,
    std: Tensor,
    beta: float,
    ratio_clip: float | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Equation 10 as the objective puts it together; with it the log ratios, which stay unclipped."""
    ratios = [log_ratio(x, policy, reference, std) for x in (winner, loser)]
    if ratio_clip is None:
        h = beta * margin(winner, loser, policy, reference, std)
    else:
        clipped = [clip_log_ratio(ratio, ratio_clip) for ratio in ratios]
        h = beta * (clipped[0] - clipped[1])
    loss, details = dpo_loss(h)
    return loss, details | {"log_ratio_winner": ratios[0].detach(), "log_ratio_loser": ratios[1].detach()}


def by_definition(winner: Tensor, loser: Tensor, policy: Tensor, reference: Tensor, std: Tensor) -> Tensor:
    """Equation 10 as it stands."""
    ratios = [log_prob(x, policy, std) - log_prob(x, reference, std) for x in (winner, loser)]
    return -F.logsigmoid(BETA * (ratios[0] - ratios[1]))


def test_closed_form_and_gradient_are_the_definition() -> None:
    example_ = example()
    mean_policy = example_[2]
    loss, _ = tailorpo_loss(*example_, beta=BETA)
    expected = by_definition(*example_)
    torch.testing.assert_close(loss, expected, atol=1e-10, rtol=0)
    (grad,) = torch.autograd.grad(loss.sum(), mean_policy)
    (expected_grad,) = torch.autograd.grad(expected.sum(), mean_policy)
    assert expected_grad.abs().max() > 1e-3
    torch.testing.assert_close(grad, expected_grad, atol=1e-10, rtol=0)


def test_log_ratio_is_a_difference_of_log_probabilities() -> None:
    winner, loser, policy, reference, std = example()
    for x in (winner, loser):
        expected = log_prob(x, policy, std) - log_prob(x, reference, std)
        torch.testing.assert_close(log_ratio(x, policy, reference, std), expected, atol=1e-10, rtol=0)
    ratio_difference = log_ratio(winner, policy, reference, std) - log_ratio(loser, policy, reference, std)
    torch.testing.assert_close(margin(winner, loser, policy, reference, std), ratio_difference, atol=1e-10, rtol=0)


def test_the_pull_is_from_loser_to_winner() -> None:
    winner, loser, policy, reference, std = example()
    loss, _ = tailorpo_loss(winner, loser, policy, reference, std, BETA)
    (grad,) = torch.autograd.grad(loss.sum(), policy)
    cosine = F.cosine_similarity((-grad).flatten(1), (winner - loser).flatten(1))
    torch.testing.assert_close(cosine, torch.ones_like(cosine), atol=1e-12, rtol=0)
    # -d loss / d mean = (1 - sigmoid(h)) beta / (std^2 n) (winner - loser), n elements in a latent.
    h = BETA * margin(winner, loser, policy, reference, std)
    factor = torch.sigmoid(-h) * BETA / std**2 / winner[0].numel()
    torch.testing.assert_close(-grad, factor.reshape(-1, 1, 1, 1) * (winner - loser), atol=1e-12, rtol=0)


def test_a_pair_by_hand() -> None:
    # Two elements: winner (1, 0), loser (0, 1), policy (0.5, 0), reference (0, 0), std 0.5, beta 2.
    # margin = mean((1, -1) * (0.5, 0)) / 0.25 = 0.25 / 0.25 = 1, h = 2, loss = log(1 + e^-2) = 0.1269280
    # log ratios: [x^2 - (x - m)^2] / (2 * 0.25), mean: winner (0.75 / 0.5) / 2 = 0.75, loser (-0.25 / 0.5) / 2 = -0.25
    row = [torch.tensor(values).reshape(1, 2, 1, 1) for values in ([1.0, 0.0], [0.0, 1.0], [0.5, 0.0], [0.0, 0.0])]
    loss, details = tailorpo_loss(*row, torch.tensor([0.5]), beta=2.0)
    assert loss.item() == pytest.approx(0.1269280, abs=1e-6)
    found = {name: value.item() for name, value in details.items()}
    expected = {"implicit_reward": 2.0, "accuracy": 1.0, "log_ratio_winner": 0.75, "log_ratio_loser": -0.25}
    assert found == pytest.approx(expected, abs=1e-6)
    # Clipped to 1 +- 0.1: h = 2 (log 1.1 - log 0.9) = 2 (0.0953102 + 0.1053605) = 0.4013414, loss = 0.5125126
    loss, details = tailorpo_loss(*row, torch.tensor([0.5]), beta=2.0, ratio_clip=0.1)
    assert details["implicit_reward"].item() == pytest.approx(0.4013414, abs=1e-6)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-0.4013414)), abs=1e-6)
    # Clipping is apart from the ratios, so that a run can see how far it has gone.
    assert details["log_ratio_winner"].item() == pytest.approx(0.75, abs=1e-6)


def test_equal_models_cost_log_two_and_prefer_nobody() -> None:
    winner, loser, _, reference, std = example()
    for clip in (None, 0.1):
        loss, details = tailorpo_loss(winner, loser, reference.clone(), reference, std, BETA, clip)
        torch.testing.assert_close(loss, torch.full_like(loss, math.log(2)), atol=1e-15, rtol=0)
        assert details["accuracy"].tolist() == [0.5] * len(loss)


def test_clip_changes_nothing_inside() -> None:
    winner, loser, policy, reference, std = example(scale=0.01)
    free, details = tailorpo_loss(winner, loser, policy, reference, std, BETA)
    assert max(details[name].abs().max() for name in ("log_ratio_winner", "log_ratio_loser")) < math.log(1.1)
    clipped, _ = tailorpo_loss(winner, loser, policy, reference, std, BETA, ratio_clip=0.1)
    torch.testing.assert_close(clipped, free, atol=1e-12, rtol=0)
    grads = [torch.autograd.grad(loss.sum(), policy)[0] for loss in (free, clipped)]
    torch.testing.assert_close(grads[1], grads[0], atol=1e-12, rtol=0)


def test_a_ratio_outside_the_clip_stops_pulling() -> None:
    # One element; policy 1, reference 0, std 1: log ratio of x is x - 0.5. Winner 3: 2.5, outside log(1.1) = 0.095.
    values = [torch.full((1, 1, 1, 1), x, dtype=torch.float64) for x in (3.0, 0.5, 1.0, 0.0)]
    values[2].requires_grad_()
    std = torch.ones(1, dtype=torch.float64)
    loss, _ = tailorpo_loss(*values, std, BETA, ratio_clip=0.1)
    (grad,) = torch.autograd.grad(loss.sum(), values[2])
    h = BETA * math.log(1.1)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-h)), abs=1e-12)
    assert grad.item() == pytest.approx(-0.5 * BETA / (1 + math.exp(h)), abs=1e-12)
    # Both outside: no pull at all.
    values[1] = torch.full_like(values[1], -3.0)
    loss, _ = tailorpo_loss(*values, std, BETA, ratio_clip=0.1)
    (grad,) = torch.autograd.grad(loss.sum(), values[2])
    assert grad.item() == 0
    # From 1 on there is no lower bound: 1 - clip is not positive. The winner is held at log 3, the loser is free: -3.5.
    _, details = tailorpo_loss(*values, std, BETA, ratio_clip=2.0)
    assert details["implicit_reward"].item() == pytest.approx(BETA * (math.log(3) + 3.5), abs=1e-12)


def test_details_are_detached_and_per_pair() -> None:
    loss, details = tailorpo_loss(*example(), beta=BETA)
    assert loss.shape == (SHAPE[0],)
    assert loss.requires_grad
    for value in details.values():
        assert value.shape == (SHAPE[0],)
        assert not value.requires_grad


def test_shapes_that_would_broadcast_are_refused() -> None:
    winner, loser, policy, reference, std = example()
    with pytest.raises(ValueError, match="shapes must be equal"):
        tailorpo_loss(winner, loser[:1], policy, reference, std, BETA)
    with pytest.raises(ValueError, match="std must be"):
        tailorpo_loss(winner, loser, policy, reference, std[:1], BETA)
    with pytest.raises(ValueError, match="mean_reference"):
        log_ratio(winner, policy, reference[:, :1], std)


def test_clip_by_hand() -> None:
    # log 0.9 = -0.1053605, log 1.1 = 0.0953102; from 1 on there is no lower bound, log 3 = 1.0986123.
    ratios = torch.tensor([-2.0, -0.05, 0.0, 0.05, 2.0])
    assert clip_log_ratio(ratios, 0.1).tolist() == pytest.approx([-0.1053605, -0.05, 0.0, 0.05, 0.0953102], abs=1e-6)
    assert clip_log_ratio(ratios, 2.0).tolist() == pytest.approx([-2.0, -0.05, 0.0, 0.05, 1.0986123], abs=1e-6)
