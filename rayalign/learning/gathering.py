"""Rows of all train workers in one tensor, differentiably."""

from __future__ import annotations

import torch
from torch import Tensor


def gather_rows(values: Tensor, rank: int, workers: int) -> Tensor:
    """(B, ...) of each of W workers -> (W B, ...), this worker's own rows first.

    Differentiable: what a worker's loss says of another's rows travels back to that worker. Own rows first, so that
    row i of a winner's side meets its own loser in column i on every worker.
    """
    if workers == 1:
        return values
    if not values.requires_grad:
        found = [torch.empty_like(values) for _ in range(workers)]
        torch.distributed.all_gather(found, values.contiguous())
    else:
        from torch.distributed.nn.functional import all_gather

        found = list(all_gather(values.contiguous()))
    return torch.cat([found[rank], *found[:rank], *found[rank + 1 :]])
