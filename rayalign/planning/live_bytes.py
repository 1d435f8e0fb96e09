"""Peak memory and operations of a computation, by running it on tensors that have a shape and no data."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode


class LiveBytes(TorchDispatchMode):
    """Follows every storage that an operation makes until it is freed.

    Attributes:
        live: bytes held now, of storages made inside this mode.
        peak: the most that was held at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        # A view of what was there before (a weight, transposed) is no new memory.
        given = {value.untyped_storage()._cdata for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        for value in tree_leaves(out):
            if isinstance(value, Tensor) and value.untyped_storage()._cdata not in given:
                self._follow(value.untyped_storage())
        return out

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self._known.add(key)
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._freed, key, size)

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


class Attention(torch.autograd.Function):
    """Attention as fused kernels do it: its inputs and its output are kept for the backward pass, no score matrix."""

    operations = 0  # since it was last set to 0: the flop counter does not see into a function of one's own

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = query.new_empty((*query.shape[:-1], value.shape[-1]))
        ctx.save_for_backward(query, key, value, out)
        Attention.operations += _attention_flops(query, key, value)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, _ = ctx.saved_tensors
        # Two products forward; five backward, one of them the scores computed again.
        Attention.operations += 5 * _attention_flops(query, key, value) // 2
        return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def _attention_flops(query: Tensor, key: Tensor, value: Tensor) -> int:
    """2 per multiply-add: scores (N, H, L, S) over D, then the weighted sum of values."""
    rows = query.numel() // query.shape[-1]
    return 2 * rows * key.shape[-2] * (query.shape[-1] + value.shape[-1])


@contextmanager
def fused_attention() -> Iterator[None]:
    """Attention without a score matrix inside: tensors without data would else take the plain path, which has one."""
    plain = F.scaled_dot_product_attention
    F.scaled_dot_product_attention = lambda q, k, v, *_, **__: Attention.apply(q, k, v)  # type: ignore[assignment]
    Attention.operations = 0
    try:
        yield
    finally:
        F.scaled_dot_product_attention = plain  # type: ignore[assignment]


@contextmanager
def measured(found: dict[str, int]) -> Iterator[None]:
    """Puts "peak" (bytes beyond what was there before) and "flops" of what runs inside into `found`."""
    with fused_attention(), FlopCounterMode(display=False) as flops, LiveBytes() as memory:
        yield
        found["peak"], found["flops"] = memory.peak, flops.get_total_flops() + Attention.operations
