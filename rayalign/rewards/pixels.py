"""From images in [0, 1] to what an image tower takes, differentiably. B C H W as everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch.nn import functional as F

Fit = Literal["shortest", "squash"]


class _StraightThroughClamp(torch.autograd.Function):
    """Forward clamps, backward passes. `x + (clamp(x) - x).detach()` would miss 1.0 by a rounding error."""

    @staticmethod
    def forward(ctx, values: torch.Tensor) -> torch.Tensor:
        return values.clamp(0.0, 1.0)

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> torch.Tensor:
        return grad


def clamp_straight_through(values: torch.Tensor) -> torch.Tensor:
    """Values in [0, 1], with the gradient of no clamp at all: an overshot pixel can still come back."""
    return _StraightThroughClamp.apply(values)


def resize(images_BCHW: torch.Tensor, size_HW: tuple[int, int]) -> torch.Tensor:
    """Bicubic with antialias, as Pillow does; without antialias the error is 25 times as large."""
    if tuple(images_BCHW.shape[-2:]) == size_HW:
        return images_BCHW
    return F.interpolate(images_BCHW, size=size_HW, mode="bicubic", antialias=True, align_corners=False)


def fitted_size(size_HW: tuple[int, int], target_HW: tuple[int, int], fit: Fit) -> tuple[int, int]:
    """What to resize (H, W) to before cropping. `shortest`: aspect ratio kept, neither side below the target.

    The longer side is rounded down, as torchvision's `Resize` does.
    """
    if fit == "squash":
        return target_HW
    (height, width), (target_h, target_w) = size_HW, target_HW
    if height * target_w >= width * target_h:  # relatively taller than the target: its width is the tight side
        return max(target_h, int(target_w * height / width)), target_w
    return target_h, max(target_w, int(target_h * width / height))


def center_crop(images_BCHW: torch.Tensor, target_HW: tuple[int, int]) -> torch.Tensor:
    """The middle `target_HW`; an odd surplus is split by Python's `round`, as torchvision does."""
    height, width = images_BCHW.shape[-2:]
    top, left = round((height - target_HW[0]) / 2), round((width - target_HW[1]) / 2)
    return images_BCHW[..., top : top + target_HW[0], left : left + target_HW[1]]


def preprocess(
    images_BCHW: torch.Tensor,
    target_HW: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    fit: Fit = "shortest",
) -> torch.Tensor:
    """Images in [0, 1], (B, 3, H, W) of any size -> the tower's input (B, 3, *target_HW).

    Clamps before resizing (a VAE overshoots) and after (bicubic overshoots; Pillow's uint8 cannot). Gradients
    pass both. Stays float throughout: rounding to uint8 would have no gradient.

    Raises:
        ValueError: not a (B, 3, H, W) tensor.
    """
    if images_BCHW.ndim != 4 or images_BCHW.shape[1] != 3:
        raise ValueError(f"images have shape {tuple(images_BCHW.shape)}; give (batch, 3, height, width)")
    height, width = images_BCHW.shape[-2:]
    images = resize(clamp_straight_through(images_BCHW), fitted_size((height, width), target_HW, fit))
    images = clamp_straight_through(center_crop(images, target_HW))
    return (images - images.new_tensor(mean).view(3, 1, 1)) / images.new_tensor(std).view(3, 1, 1)
