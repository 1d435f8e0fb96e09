"""Rank checks on entry of public maths: a silent broadcast is the commonest way to train on the wrong thing."""

from __future__ import annotations

from torch import Tensor


def check_same_shape(**tensors: Tensor) -> None:
    """Raises ValueError naming every shape unless all are equal."""
    if len({tuple(tensor.shape) for tensor in tensors.values()}) > 1:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in tensors.items())
        raise ValueError(f"shapes must be equal, got {shapes}")


def check_batch(name: str, tensor: Tensor, batch: int) -> None:
    """Raises ValueError unless `tensor` is (batch,)."""
    if tuple(tensor.shape) != (batch,):
        raise ValueError(f"{name} must be ({batch},), got {tuple(tensor.shape)}")


def per_sample(values_B: Tensor, like_BCHW: Tensor) -> Tensor:
    """(B,) -> (B, 1, 1, 1), to multiply a batch of latents sample by sample."""
    return values_B.reshape(-1, *[1] * (like_BCHW.dim() - 1))
