"""What the denoiser is told about the prompt, and the one place that knows of classifier-free guidance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Conditioning:
    """Text of B prompts. L tokens, D width, P pooled width; pooled is None where the family has none."""

    embeds: Tensor  # (B, L, D)
    negative_embeds: Tensor  # (B, L, D), of the empty prompt
    pooled: Tensor | None = None  # (B, P)
    negative_pooled: Tensor | None = None  # (B, P)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Conditioning:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        changed: dict[str, Any] = {name: None if value is None else change(value) for name, value in values.items()}
        return Conditioning(**changed)

    def to(self, device: torch.device | str) -> Conditioning:
        return self._map(lambda value: value.to(device))

    def __getitem__(self, rows: Tensor | slice) -> Conditioning:
        return self._map(lambda value: value[rows])

    def __len__(self) -> int:
        return len(self.embeds)

    @staticmethod
    def concatenate(parts: list[Conditioning]) -> Conditioning:
        columns = {f.name: [getattr(part, f.name) for part in parts] for f in fields(Conditioning)}
        joined: dict[str, Any] = {k: None if v[0] is None else torch.cat(v) for k, v in columns.items()}
        return Conditioning(**joined)


def guide(negative: Tensor, positive: Tensor, scale: float) -> Tensor:
    """eps_neg + scale (eps_pos - eps_neg): classifier-free guidance (Ho and Salimans, arXiv 2207.12598).

    Nothing else in the package combines the two predictions: sampling, training, policy and reference all
    see only the result.
    """
    return negative + scale * (positive - negative)
