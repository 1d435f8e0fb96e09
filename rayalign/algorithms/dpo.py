"""The preference loss on a margin of implicit rewards, wherever it comes from.

"Direct Preference Optimization: Your Language Model is Secretly a Reward Model" by Rafailov et al. (arXiv 2305.18290),
equation 7, with a factor for the reward scale of Kang et al. (`reward_scale.py`):

    loss = -log sigmoid( scale (h_w - h_l) )

| pairs                           | h_w - h_l                                                          |
|---------------------------------|--------------------------------------------------------------------|
| step-wise, one x_t              | beta `tailorpo.margin`, in closed form                             |
| transitions of two trajectories | beta (`tailorpo.log_ratio` of winner - of loser)                   |
| re-noised images                | beta (`diffusion_dpo.implicit_reward` of winner - of loser)        |
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from rayalign.algorithms.checks import check_batch


def dpo_loss(margin_B: Tensor, scale_B: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """Per-sample loss (B,) and detached diagnostics (B,): margin and accuracy.

    Args:
      margin_B: h_w - h_l, (B,), beta included. It is asked for as a difference because step-wise pairs have it in
        closed form, where subtracting two implicit rewards would lose digits.
      scale_B: factor inside the sigmoid, (B,), above 0; None is 1. The margin is reported without it, so that runs
        with and without can be compared.
    Raises ValueError on other shapes.
    """
    check_batch("margin", margin_B, margin_B.numel())
    scaled = margin_B
    if scale_B is not None:
        check_batch("scale", scale_B, margin_B.numel())
        scaled = scale_B * margin_B
    return -F.logsigmoid(scaled), {"implicit_reward": margin_B.detach(), "accuracy": prefers_winner(margin_B)}


def prefers_winner(margin: Tensor) -> Tensor:
    """1 where the policy's implicit reward ranks the winner above, else 0, detached; any shape.

    Halves for a margin of 0, where the policy still is the reference and prefers neither.
    """
    margin = margin.detach()
    return (margin > 0).float() + 0.5 * (margin == 0).float()
