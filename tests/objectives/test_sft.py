from __future__ import annotations

import torch

from rayalign.objectives.sft import SFT
from tests.objectives.views import KnownView


def test_it_is_the_winners_loss_and_asks_for_nothing_else() -> None:
    loss = torch.tensor([0.5, 2.0], requires_grad=True)
    found, details = SFT().losses(KnownView(loss_B=loss))
    assert torch.equal(found, loss)
    assert found.requires_grad
    assert details == {}
