"""What an objective is, and what it may ask of a micro-batch. Light: torch is imported where a loss is computed.

Shape letters: B rows of a micro-batch, D embedding width, W train workers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

from rayalign.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor

RowKind = Literal["stepwise", "trajectory", "clean", "sample"]
PAIRS: frozenset[str] = frozenset({"stepwise", "trajectory", "clean"})

# Of transitions a log-ratio that is a mean over latent elements (D3PO's code), of re-noised pairs Diffusion-DPO's.
DEFAULT_BETA = {"stepwise": 0.1, "trajectory": 0.1, "clean": 5000.0}


class ImplicitRewards(NamedTuple):
    """h / beta of winners and losers, (B,) each, and their difference.

    Transitions: log pi_th - log pi_ref. Re-noised images: -0.5 (error_th - error_ref). `margin_B` is the difference
    in closed form where winner and loser share x_t, so that no two large numbers are subtracted.
    """

    winner_B: Tensor
    loser_B: Tensor
    margin_B: Tensor


class Embeddings(NamedTuple):
    """Unit CLIP embeddings, (B, D) each."""

    prompt_BD: Tensor
    winner_BD: Tensor
    loser_BD: Tensor


class View(Protocol):
    """One micro-batch, and the model's answers to it, computed when they are asked for."""

    rows: RowKind
    scale_B: Tensor  # factor on the margin inside the sigmoid (reward_scale), 1 for constant
    valid_B: Tensor  # bool: rows that are no preference are False, and weigh nothing

    def implicit_rewards(self) -> ImplicitRewards: ...

    def winner_loss(self) -> Tensor:
        """(B,) how badly the policy explains the winner: transitions by their log-probability, images by denoising."""
        ...

    def log_probs(self) -> tuple[Tensor, Tensor]:
        """Of a sampled transition, (B,) each: under the policy now, and under the one that it was drawn from."""
        ...

    def advantage(self) -> Tensor:
        """(B,) of a sampled trajectory."""
        ...

    def embeddings(self) -> Embeddings: ...

    def gather(self, values: Tensor) -> Tensor:
        """(B, ...) of every worker, (W B, ...), this worker's first; differentiable."""
        ...


Losses = tuple["Tensor", dict[str, "Tensor"]]


class Objective(Settings):
    """Settings of a loss and the loss itself. A subclass is one file and one line of `table.py`."""

    rows: ClassVar[frozenset[str]] = PAIRS  # kinds of rows that it trains on
    kind: str
    metrics: ClassVar[tuple[str, ...]] = ("implicit_reward", "accuracy")  # keys of `losses`' details

    @property
    def contrasts(self) -> bool:
        """Whether rows of a micro-batch are set against each other: they then share step and timestep."""
        return False

    @property
    def gathers(self) -> bool:
        """Whether it asks other workers for their rows: every worker then makes the same number of calls."""
        return False

    @property
    def embeds_with(self) -> tuple[str, dict[str, Any]] | None:
        """(scorer name, options) of the CLIP whose embeddings the pairs must carry; None for none."""
        return None

    def losses(self, view: View) -> Losses:
        """Loss of each row, (B,), and detached details (B,) by name, one for each of `metrics`."""
        raise NotImplementedError
