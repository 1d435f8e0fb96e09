from __future__ import annotations

import math

import pytest
import torch

from rayalign.objectives.base import DEFAULT_BETA
from rayalign.objectives.dpo import DPO
from tests.objectives.views import KnownView


def log_sigmoid(value: float) -> float:
    return -math.log1p(math.exp(-value))


def test_transitions_by_hand() -> None:
    view = KnownView(winner_B=torch.tensor([0.03, -0.01, 0.5]), loser_B=torch.tensor([0.01, 0.02, 0.5]))
    loss, details = DPO(beta=10.0, ratio_clip=None).losses(view)
    # h = 10 (0.02, -0.03, 0).
    assert loss.tolist() == pytest.approx([-log_sigmoid(0.2), -log_sigmoid(-0.3), math.log(2)], abs=1e-6)
    assert details["implicit_reward"].tolist() == pytest.approx([0.2, -0.3, 0.0], abs=1e-6)
    assert details["accuracy"].tolist() == [1.0, 0.0, 0.5]


@pytest.mark.parametrize("rows", ["stepwise", "trajectory"])
def test_each_ratio_is_clipped_apart(rows: str) -> None:
    """exp(2) and exp(-0.05): the winner's ratio is held at 1.1, the loser's is inside. The difference alone, 2.05,
    clipped as one would be 0.0953."""
    view = KnownView(rows, torch.tensor([2.0]), torch.tensor([-0.05]))  # type: ignore[arg-type]
    loss, _ = DPO(beta=1.0, ratio_clip=0.1).losses(view)
    assert loss.tolist() == pytest.approx([-log_sigmoid(math.log(1.1) + 0.05)], abs=1e-6)


def test_the_closed_form_is_used_where_nothing_is_clipped() -> None:
    """Large ratios, small difference: in float32 their difference is 0, the margin is not."""
    far = torch.tensor([20_000.0])
    view = KnownView("stepwise", far, far.clone(), margin_B=torch.tensor([0.001]))
    loss, details = DPO(beta=1.0, ratio_clip=None).losses(view)
    assert loss.tolist() == pytest.approx([-log_sigmoid(0.001)], abs=1e-7)
    assert details["implicit_reward"].item() == pytest.approx(0.001)


def test_renoised_images_are_not_clipped() -> None:
    """Their h is no log-ratio."""
    view = KnownView("clean", torch.tensor([2.0]), torch.tensor([-1.0]))
    loss, _ = DPO(beta=0.5, ratio_clip=0.1).losses(view)
    assert loss.tolist() == pytest.approx([-log_sigmoid(1.5)], abs=1e-6)


@pytest.mark.parametrize(("rows", "beta"), [("stepwise", 0.1), ("trajectory", 0.1), ("clean", 5000.0)])
def test_beta_has_the_unit_of_its_rows(rows: str, beta: float) -> None:
    assert DEFAULT_BETA[rows] == beta
    view = KnownView(rows, torch.tensor([1e-4, 0.0]), torch.tensor([0.0, 1e-4]))  # type: ignore[arg-type]
    _, details = DPO().losses(view)
    assert details["implicit_reward"].tolist() == pytest.approx([beta * 1e-4, -beta * 1e-4], rel=1e-4)
    _, own = DPO(beta=3.0).losses(view)
    assert own["implicit_reward"].tolist() == pytest.approx([3e-4, -3e-4], rel=1e-4)


@pytest.mark.parametrize("rows", ["stepwise", "trajectory", "clean"])
def test_the_scale_is_inside_the_sigmoid_and_not_reported(rows: str) -> None:
    winner, loser, scale = torch.tensor([0.04, -0.02]), torch.tensor([0.0, 0.0]), torch.tensor([2.0, 1.5])
    view = KnownView(rows, winner, loser, scale_B=scale)  # type: ignore[arg-type]
    loss, details = DPO(beta=10.0).losses(view)
    # Outside it would be 2 x 0.5130 and 1.5 x 0.7981.
    assert loss.tolist() == pytest.approx([-log_sigmoid(2 * 0.4), -log_sigmoid(1.5 * -0.2)], abs=1e-6)
    assert details["implicit_reward"].tolist() == pytest.approx([0.4, -0.2])
