"""HPS v2 and v2.1: a CLIP ViT-H/14 tuned on people's choices between images of one prompt.

The two versions are tuned on different data: their scores do not compare.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from rayalign.rewards.clip import ClipScorer
from rayalign.rewards.sources import HPS_V2, HPS_V21
from rayalign.rewards.weights import Weights, find_file


class HpsV2Scorer(ClipScorer):
    """cos(text, image) by the weights of HPS v2 (what the package `hpsv2` calls v2.0, and its `score` takes).

    See "Human Preference Score v2" by Wu et al. (https://arxiv.org/abs/2306.09341). No logit scale; tables print it
    x100. The longest side becomes 224 and the rest is black. As in its own code the pixels are resized as floats and
    keep what bicubic overshoots; that code's torchvision antialiases from 0.17 on, as is done here, so scores made
    with an older one differ.

    Args:
        weights: a checkpoint file, a folder that holds the version's usual one, or a hub id.
        model: the open_clip architecture that the weights are of.
        device: as in `TowerScorer`, like the next two.
        dtype: float32 or bfloat16.
        chunk: images in one run of the tower.

    Raises:
        ValueError: no such weights, or not of that architecture.
    """

    unit: ClassVar[str] = "HPS v2.0: cosine of text and image, x1; about 0.2 to 0.35"
    licence: ClassVar[str] = "Apache-2.0"
    weights: ClassVar[tuple[Weights, ...]] = (HPS_V2,)

    def __init__(
        self,
        weights: str = HPS_V2.source,
        model: str = "ViT-H-14",
        device: str = "auto",
        dtype: str = "float32",
        chunk: int | None = None,
    ) -> None:
        file = find_file("weights", weights, self.weights[0].files[0])
        super().__init__(model, str(file), device, dtype, chunk)
        self.preprocessing = replace(self.preprocessing, fit="longest", keep_overshoot=True)


class HpsV21Scorer(HpsV2Scorer):
    """The same by the weights of v2.1, which were tuned on better data and spread wider."""

    unit: ClassVar[str] = "HPS v2.1: cosine of text and image, x1; about 0.15 to 0.4"
    weights: ClassVar[tuple[Weights, ...]] = (HPS_V21,)
