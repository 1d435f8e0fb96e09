from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from rayalign.learning.gathering import gather_rows
from tests.learning.two_workers import WORKERS, run_two

ROWS = 3


def values_of(rank: int) -> Tensor:
    return torch.randn(ROWS, 2, generator=torch.Generator().manual_seed(rank))


def loss_of(own: Tensor, everybody: Tensor, rank: int) -> Tensor:
    """Own rows against everybody's, with a weight that tells who asks and whom: nothing cancels."""
    weights = torch.arange(1.0, 1 + everybody.shape[0]) * (1 + rank)
    return ((own @ everybody.T).tanh() * weights).sum()


def gather_and_pull(rank: int) -> dict[str, Tensor]:
    own = values_of(rank).requires_grad_(True)
    everybody = gather_rows(own, rank, WORKERS)
    plain = gather_rows(own.detach(), rank, WORKERS)
    one_column = gather_rows(own.detach()[:, 0].T, rank, WORKERS)
    loss_of(own, everybody, rank).backward()
    return {"everybody": everybody.detach(), "plain": plain, "column": one_column, "grad": own.grad}


def test_own_rows_come_first_and_gradients_travel_back(tmp_path: Path) -> None:
    found = run_two(tmp_path, gather_and_pull)
    values = [values_of(rank).requires_grad_(True) for rank in range(WORKERS)]
    # What both workers' losses say together of each worker's rows, in one process.
    total = sum(loss_of(values[rank], torch.cat([values[rank], values[1 - rank]]), rank) for rank in range(WORKERS))
    grads = torch.autograd.grad(total, values)
    for rank, one in enumerate(found):
        expected = torch.cat([values[rank], values[1 - rank]]).detach()
        assert torch.equal(one["everybody"], expected)
        assert torch.equal(one["plain"], expected)
        assert torch.equal(one["column"], expected[:, 0])
        torch.testing.assert_close(one["grad"], grads[rank], rtol=1e-5, atol=1e-6)
    # Its own loss alone would leave a worker half of that.
    alone = torch.autograd.grad(loss_of(values[0], torch.cat([values[0], values[1].detach()]), 0), values[0])[0]
    assert (found[0]["grad"] - alone).abs().max() > 0.1


def test_one_worker_keeps_what_it_has() -> None:
    own = values_of(0).requires_grad_(True)
    assert gather_rows(own, 0, 1) is own
