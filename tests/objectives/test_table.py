from __future__ import annotations

from typing import get_args

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from rayalign.objectives.base import DEFAULT_BETA, Embeddings, Objective
from rayalign.objectives.table import OBJECTIVES, union
from rayalign.records import LATENTS
from tests.objectives.views import KnownView


def kinds() -> list[str]:
    return [objective.model_fields["kind"].default for objective in OBJECTIVES]


def test_each_kind_stands_once_and_chooses_its_objective() -> None:
    assert len(set(kinds())) == len(OBJECTIVES)
    for kind, objective in zip(kinds(), OBJECTIVES, strict=True):
        assert type(TypeAdapter(union()).validate_python({"kind": kind})) is objective
    with pytest.raises(ValidationError, match="expected tags"):
        TypeAdapter(union()).validate_python({"kind": "another"})


@pytest.mark.parametrize("objective", OBJECTIVES, ids=kinds())
def test_every_setting_says_what_it_is(objective: type[Objective]) -> None:
    """`--help` shows them."""
    assert all(info.description for name, info in objective.model_fields.items() if name != "kind")
    assert get_args(objective.model_fields["kind"].annotation) == (objective.model_fields["kind"].default,)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=kinds())
def test_it_trains_on_known_rows_and_tells_what_it_promises(objective: type[Objective]) -> None:
    assert objective.rows
    assert objective.rows <= set(LATENTS)
    for rows in objective.rows:
        two = torch.tensor([0.1, 0.2])
        view = KnownView(
            rows,  # type: ignore[arg-type]
            winner_B=two,
            found=Embeddings(*[torch.eye(2)] * 3),
            log_prob_B=two,
            old_B=two,
            advantage_B=two,
            loss_B=two,
        )
        loss, details = objective().losses(view)
        assert loss.shape == (2,)
        assert set(details) == set(objective.metrics)
        assert all(values.shape == (2,) and not values.requires_grad for values in details.values())


def test_every_kind_of_pair_has_a_default_beta() -> None:
    assert set(DEFAULT_BETA) == set(LATENTS) - {"sample"}
