"""From images in [0, 1] to what an image tower takes, differentiably. B C H W as everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F

Fit = Literal["shortest", "longest", "squash"]
Crop = Literal["round", "floor"]
# What OpenAI's CLIP was trained on, and most towers since.
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Preprocessing:
    """What an image tower was trained on; a callable from images to its input. The fields are those of `preprocess`."""

    size_HW: tuple[int, int]
    mean: Sequence[float] = CLIP_MEAN
    std: Sequence[float] = CLIP_STD
    fit: Fit = "shortest"
    odd_crop: Crop = "round"
    keep_overshoot: bool = False

    def __call__(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Images in [0, 1], (B, 3, H, W) of any size -> (B, 3, *size_HW). Raises what `preprocess` does."""
        how = (self.mean, self.std, self.fit, self.odd_crop, self.keep_overshoot)
        return preprocess(images_BCHW, self.size_HW, *how)


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
    """What to resize (H, W) to before cropping or padding.

    `shortest`: aspect ratio kept, neither side below the target; the longer side is rounded down, as torchvision's
    `Resize` does. `longest`: aspect ratio kept, neither side above the target; the shorter side is rounded to the
    nearest, as HPSv2 does. `squash`: the target.
    """
    if fit == "squash":
        return target_HW
    (height, width), (target_h, target_w) = size_HW, target_HW
    if fit == "longest":
        scale = min(target_h / height, target_w / width)
        return max(1, round(height * scale)), max(1, round(width * scale))
    if height * target_w >= width * target_h:  # relatively taller than the target: its width is the tight side
        return max(target_h, int(target_w * height / width)), target_w
    return target_h, max(target_w, int(target_h * width / height))


def center_crop(images_BCHW: torch.Tensor, target_HW: tuple[int, int], odd: Crop = "round") -> torch.Tensor:
    """The middle `target_HW`. Half a pixel goes by Python's `round` as in torchvision, or down as in transformers."""
    height, width = images_BCHW.shape[-2:]
    top, left = (
        round(surplus / 2) if odd == "round" else surplus // 2
        for surplus in (height - target_HW[0], width - target_HW[1])
    )
    return images_BCHW[..., top : top + target_HW[0], left : left + target_HW[1]]


def pad_black(images_BCHW: torch.Tensor, target_HW: tuple[int, int]) -> torch.Tensor:
    """Zeros around the image up to `target_HW`; an odd pixel goes to the bottom and the right, as in HPSv2."""
    height, width = images_BCHW.shape[-2:]
    pad_h, pad_w = target_HW[0] - height, target_HW[1] - width
    return F.pad(images_BCHW, (pad_w // 2, pad_w - pad_w // 2, pad_h // 2, pad_h - pad_h // 2))


def preprocess(
    images_BCHW: torch.Tensor,
    target_HW: tuple[int, int],
    mean: Sequence[float],
    std: Sequence[float],
    fit: Fit = "shortest",
    odd_crop: Crop = "round",
    keep_overshoot: bool = False,
) -> torch.Tensor:
    """Images in [0, 1], (B, 3, H, W) of any size -> the tower's input (B, 3, *target_HW).

    Clamps before resizing (a VAE overshoots) and after (bicubic overshoots; Pillow's uint8 cannot). Gradients
    pass both. Stays float throughout: rounding to uint8 would have no gradient.

    Args:
        images_BCHW: float, in [0, 1].
        target_HW: height and width of the tower's input.
        mean: of each channel, subtracted last.
        std: of each channel, divided by.
        fit: `shortest` crops what is left over, `longest` pads with black, `squash` changes the aspect ratio.
        odd_crop: where half a pixel of a crop goes, see `center_crop`.
        keep_overshoot: no clamp after the resize, for a tower whose own code resizes float tensors.

    Raises:
        ValueError: not a (B, 3, H, W) tensor.
    """
    if images_BCHW.ndim != 4 or images_BCHW.shape[1] != 3:
        raise ValueError(f"images have shape {tuple(images_BCHW.shape)}; give (batch, 3, height, width)")
    height, width = images_BCHW.shape[-2:]
    images = resize(clamp_straight_through(images_BCHW), fitted_size((height, width), target_HW, fit))
    images = pad_black(images, target_HW) if fit == "longest" else center_crop(images, target_HW, odd_crop)
    images = images if keep_overshoot else clamp_straight_through(images)
    return (images - images.new_tensor(mean).view(3, 1, 1)) / images.new_tensor(std).view(3, 1, 1)
