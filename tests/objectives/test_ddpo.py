from __future__ import annotations

import math

import pytest
import torch

from rayalign.objectives.ddpo import DDPO
from tests.objectives.views import KnownView


def test_four_transitions_by_hand() -> None:
    """Ratios 1.02, 1.2, 0.8, 1.2 with a clip of 0.1; advantages 2, 2, -1 and -9, which is cut to -5."""
    ratio = torch.tensor([1.02, 1.2, 0.8, 1.2])
    view = KnownView(
        "sample",
        winner_B=torch.zeros(4),
        log_prob_B=(ratio.log() - 1.5).requires_grad_(),
        old_B=torch.full((4,), -1.5),
        advantage_B=torch.tensor([2.0, 2.0, -1.0, -9.0]),
    )
    loss, details = DDPO(ratio_clip=0.1).losses(view)
    # -min(A r, A clip(r)): 2.04; 2.2, held; -(-0.9), held; -5 x 1.2, which is worse than -5 x 1.1 and stands.
    assert loss.tolist() == pytest.approx([-2.04, -2.2, 0.9, 6.0], abs=1e-5)
    assert details["ratio"].tolist() == pytest.approx(ratio.tolist(), abs=1e-6)
    assert details["clipped"].tolist() == [0.0, 1.0, 1.0, 1.0]
    (grad,) = torch.autograd.grad(loss.sum(), view.log_prob_B)
    # Where the clip holds nothing pulls; else -A r.
    assert grad.tolist() == pytest.approx([-2.04, 0.0, 0.0, 6.0], abs=1e-5)


def test_the_settings_reach_the_loss() -> None:
    view = KnownView(
        "sample",
        winner_B=torch.zeros(1),
        log_prob_B=torch.tensor([math.log(2.0)]),
        old_B=torch.zeros(1),
        advantage_B=torch.tensor([3.0]),
    )
    assert DDPO().losses(view)[0].item() == pytest.approx(-3 * 1.0001)  # the paper's clip
    assert DDPO(ratio_clip=5.0, max_advantage=1.5).losses(view)[0].item() == pytest.approx(-3.0)  # 1.5 x 2
