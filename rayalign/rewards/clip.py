"""CLIP score: the cosine of a text's and an image's embedding, differentiable down to the pixels.

Shape letters: B images, C H W channels, height, width, D embedding.
"""

from __future__ import annotations

from typing import ClassVar

import open_clip
import torch

from rayalign.rewards.pixels import Preprocessing
from rayalign.rewards.sources import CLIP_MODEL, CLIP_PRETRAINED
from rayalign.rewards.tower import TextTowerScorer, frozen
from rayalign.rewards.weights import Weights


class ClipScorer(TextTowerScorer):
    """cos(text, image), x1.

    See "CLIPScore" by Hessel et al. (https://arxiv.org/abs/2104.08718), without its factor 2.5, its cut
    at zero (no gradient below) and its prefix "A photo depicts".

    Args:
        model: an open_clip name (`ViT-H-14`), `local-dir:/path/to/folder` or `hf-hub:owner/name`.
        pretrained: tag of the weights (`laion2b_s32b_b79k`) or a local file; null for the last two kinds of
            `model`, and for `ViT-H-14` with its usual weights.
        device: as in `TowerScorer`, like the next two.
        dtype: float32 or bfloat16.
        chunk: images in one run of the tower.

    Raises:
        ValueError: open_clip does not know or cannot load the model, or its preprocessing is not supported.
    """

    unit: ClassVar[str] = "cosine of text and image, in [-1, 1]"
    num_tokens: ClassVar[int] = 77
    licence: ClassVar[str] = "MIT"
    weights: ClassVar[tuple[Weights, ...]] = (CLIP_MODEL, CLIP_PRETRAINED)

    def __init__(
        self,
        model: str = "ViT-H-14",
        pretrained: str | None = None,
        device: str = "auto",
        dtype: str = "float32",
        chunk: int | None = None,
    ) -> None:
        super().__init__(device, dtype, chunk)
        self.model = _load(model, pretrained or _default_weights(model), self.device)
        self.tokenizer = open_clip.get_tokenizer(model)
        self.preprocessing = _preprocessing(self.model)

    def score_tensors(self, images_BCHW: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        """Images in [0, 1] and their prompts -> cosines (B,). The dtype is that of the model."""
        return self.cosines(images_BCHW, prompts)

    def image_features(self, inputs_BCHW: torch.Tensor) -> torch.Tensor:
        return self.model.encode_image(inputs_BCHW)

    def text_features(self, prompt: str) -> torch.Tensor:
        return self.model.encode_text(self.tokenizer([prompt]).to(self.device))[0]


def toy_clip(device: str = "auto", dtype: str = "float32", chunk: int | None = None) -> ClipScorer:
    """The CLIP that ships with the package, which knows coloured shapes and nothing else."""
    from rayalign.toy import toy_path

    return ClipScorer(model=f"local-dir:{toy_path('toy-clip')}", device=device, dtype=dtype, chunk=chunk)


def _default_weights(model: str) -> str | None:
    return "laion2b_s32b_b79k" if model == "ViT-H-14" else None


def _load(model: str, pretrained: str | None, device: torch.device) -> torch.nn.Module:
    """The model in float32, frozen and in eval mode."""
    try:
        clip = open_clip.create_model(model, pretrained, precision="fp32", device=device, require_pretrained=True)
    except Exception as error:  # name, tag, network, other shapes; a file of any other kind can raise anything
        raise ValueError(
            f"open_clip could not load model {model!r}, pretrained {pretrained!r}: {error}; set model to a name, "
            f"local-dir:/path or hf-hub:owner/name, and pretrained to a tag or a file of that model's weights"
        ) from error
    return frozen(clip, device)


def _preprocessing(clip: torch.nn.Module) -> Preprocessing:
    """What the model was trained on.

    Raises:
        ValueError: another resize than `preprocess` knows; scores would be silently off.
    """
    cfg = open_clip.get_model_preprocess_cfg(clip)
    fit, interpolation = cfg.get("resize_mode", "shortest"), cfg.get("interpolation", "bicubic")
    if fit not in ("shortest", "longest", "squash") or interpolation != "bicubic" or cfg.get("fill_color", 0) != 0:
        raise ValueError(
            f"model resizes by {fit} with {interpolation}, filling with {cfg.get('fill_color', 0)}; choose one with "
            f"bicubic shortest, squash, or longest on black"
        )
    size = cfg["size"]
    size_HW = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    return Preprocessing(size_HW, cfg["mean"], cfg["std"], fit)
