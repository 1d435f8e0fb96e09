from __future__ import annotations

import math

import pytest
import torch

from rayalign.objectives.base import Embeddings
from rayalign.objectives.dpo import DPO
from rayalign.objectives.rpo import RPO
from tests.objectives.views import KnownView

# In a plane, by angle in degrees: the distance of two is 1 - cos of what is between them.
PROMPTS, WINNERS, LOSERS = (0.0, 90.0), (0.0, 60.0), (60.0, 90.0)


def embeds(*angles: float) -> torch.Tensor:
    turned = torch.tensor(angles).deg2rad()
    return torch.stack([turned.cos(), turned.sin()], 1)


def view_of(rows: str = "clean", **changes: object) -> KnownView:
    values = {
        "winner_B": torch.tensor([0.03, -0.01]),
        "loser_B": torch.tensor([0.01, 0.02]),
        "found": Embeddings(embeds(*PROMPTS), embeds(*WINNERS), embeds(*LOSERS)),
    }
    return KnownView(rows, **(values | changes))  # type: ignore[arg-type]


def softmax(*logits: float) -> list[float]:
    powers = [math.exp(value) for value in logits]
    return [power / sum(powers) for power in powers]


def loss_of(h: float) -> float:
    return math.log1p(math.exp(-h))


# h = 10 (winner - loser): winner 0 against losers 0 and 1, then winner 1.
H = ((0.2, 0.1), (-0.2, -0.3))
# 1 - cos: prompts 0 and 90 degrees apart; winners at 0 and 60, losers at 60 and 90.
DISTANCES = {
    "prompt": ((0.0, 1.0), (1.0, 0.0)),
    "image": ((0.5, 1.0), (0.0, 1 - 3**0.5 / 2)),
    "joint": ((0.25, 1.0), (0.5, (1 - 3**0.5 / 2) / 2)),
}


@pytest.mark.parametrize("distance", DISTANCES)
def test_two_pairs_by_hand(distance: str) -> None:
    loss, details = RPO(beta=10.0, tau=0.5, distance=distance).losses(view_of())  # type: ignore[arg-type]
    weights = [softmax(*(-d / 0.5 for d in row)) for row in DISTANCES[distance]]
    expected = [sum(w * loss_of(h) for w, h in zip(*rows, strict=True)) for rows in zip(weights, H, strict=True)]
    assert loss.tolist() == pytest.approx(expected, abs=1e-6)
    # Reported is each winner against its own loser.
    assert details["implicit_reward"].tolist() == pytest.approx([0.2, -0.3], abs=1e-6)
    assert details["accuracy"].tolist() == [1.0, 0.0]


def test_the_weight_inside_by_hand() -> None:
    objective = RPO(beta=10.0, tau=0.5, distance="prompt", placement="inside")
    loss, _ = objective.losses(view_of())
    weights = [softmax(*(-d / 0.5 for d in row)) for row in DISTANCES["prompt"]]
    expected = [sum(loss_of(w * h) for w, h in zip(*rows, strict=True)) / 2 for rows in zip(weights, H, strict=True)]
    assert loss.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("rows", ["stepwise", "trajectory", "clean"])
@pytest.mark.parametrize("placement", ["outside", "inside"])
def test_one_pair_is_dpo_without_a_clip(rows: str, placement: str) -> None:
    one = view_of(
        rows,
        winner_B=torch.tensor([3e-4]),
        loser_B=torch.tensor([1e-4]),
        scale_B=torch.tensor([1.5]),
        found=Embeddings(embeds(10.0), embeds(20.0), embeds(80.0)),
    )
    ours = RPO(placement=placement).losses(one)  # type: ignore[arg-type]
    theirs = DPO(ratio_clip=None).losses(one)
    assert ours[0].tolist() == pytest.approx(theirs[0].tolist(), abs=1e-7)
    for name, values in theirs[1].items():
        assert ours[1][name].tolist() == pytest.approx(values.tolist(), rel=1e-4)


def test_a_small_tau_is_dpo_and_a_large_one_the_mean_over_all() -> None:
    view = view_of()
    own = DPO(beta=10.0, ratio_clip=None).losses(view)[0]
    assert RPO(beta=10.0, tau=1e-3, distance="prompt").losses(view)[0].tolist() == pytest.approx(own.tolist(), abs=1e-6)
    mean = [(loss_of(row[0]) + loss_of(row[1])) / 2 for row in H]
    assert RPO(beta=10.0, tau=1e6).losses(view)[0].tolist() == pytest.approx(mean, abs=1e-5)


@pytest.mark.parametrize("placement", ["outside", "inside"])
def test_a_dropped_pair_is_nobodys_loser(placement: str) -> None:
    objective = RPO(beta=10.0, placement=placement)  # type: ignore[arg-type]
    with_dropped, _ = objective.losses(view_of(valid_B=torch.tensor([True, False])))
    alone = view_of(winner_B=torch.tensor([0.03]), loser_B=torch.tensor([0.01]), found=Embeddings(*[embeds(0.0)] * 3))
    assert with_dropped[0].item() == pytest.approx(objective.losses(alone)[0].item(), abs=1e-7)
    assert with_dropped.isfinite().all()


@pytest.mark.parametrize("placement", ["outside", "inside"])
def test_gathered_losers_are_those_of_all_workers(placement: str) -> None:
    """Two workers of two, against four in one batch: the losses of this worker's two are the same."""
    other = view_of(
        winner_B=torch.tensor([0.0, 0.05]),
        loser_B=torch.tensor([-0.04, 0.015]),
        found=Embeddings(embeds(30.0, 45.0), embeds(15.0, 80.0), embeds(5.0, 50.0)),
        valid_B=torch.tensor([False, True]),
    )
    here = view_of(others=other, scale_B=torch.tensor([1.5, 1.5]))
    columns = {
        name: torch.cat([getattr(here, name), getattr(other, name)]) for name in ("winner_B", "loser_B", "valid_B")
    }
    whole = view_of(
        **columns,
        scale_B=torch.full((4,), 1.5),
        found=Embeddings(*(torch.cat(both) for both in zip(here.embeddings(), other.embeddings(), strict=True))),
    )
    settings = {"beta": 10.0, "placement": placement}
    gathered, details = RPO(gather=True, **settings).losses(here)  # type: ignore[arg-type]
    together, _ = RPO(**settings).losses(whole)  # type: ignore[arg-type]
    apart, _ = RPO(**settings).losses(here)  # type: ignore[arg-type]
    assert gathered.tolist() == pytest.approx(together[:2].tolist(), abs=1e-6)
    assert (gathered - apart).abs().min() > 1e-4
    assert details["implicit_reward"].shape == (2,)


def test_what_it_asks_of_the_pipeline() -> None:
    objective = RPO(embedder="toy-clip", embedder_options={"chunk": 4})
    assert objective.contrasts
    assert not objective.gathers
    assert RPO(gather=True).gathers
    assert objective.embeds_with == ("toy-clip", {"chunk": 4})
    assert (DPO().contrasts, DPO().gathers, DPO().embeds_with) == (False, False, None)
