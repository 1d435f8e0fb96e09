"""CLIP score: the cosine of a text's and an image's embedding, differentiable down to the pixels.

Shape letters: B images, C H W channels, height, width, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
import open_clip
import torch

from rayalign.rewards.pixels import preprocess

CHUNK_CPU, CHUNK_GPU = 8, 32
MAX_CACHED_PROMPTS = 50_000  # some 200 MB of embeddings at most, should a run make its prompts up as it goes


class ClipScorer:
    """cos(text, image), x1.

    See "CLIPScore" by Hessel et al. (https://arxiv.org/abs/2104.08718), without its factor 2.5, its cut
    at zero (no gradient below) and its prefix "A photo depicts".

    The image tower always runs on `chunk` images, short chunks filled up with their last one, and the text
    tower on one prompt: matrix products of another shape round differently, and then a score would depend on
    which calls were batched together.

    Args:
        model: an open_clip name (`ViT-H-14`), `local-dir:/path/to/folder` or `hf-hub:owner/name`.
        pretrained: tag of the weights (`laion2b_s32b_b79k`) or a local file; null for the last two kinds of
            `model`, and for `ViT-H-14` with its usual weights.
        device: `cpu`, `cuda`, ...; `auto` takes a GPU where this process sees one.
        chunk: images in one run of the tower; 8 on a CPU and 32 on a GPU where null. Scores of different
            `chunk` may differ in their last bits.

    Raises:
        ValueError: open_clip does not know or cannot load the model, or its preprocessing is not supported.
    """

    differentiable: ClassVar[bool] = True
    needs_prompt: ClassVar[bool] = True
    unit: ClassVar[str] = "cosine of text and image, in [-1, 1]"

    def __init__(
        self,
        model: str = "ViT-H-14",
        pretrained: str | None = None,
        device: str = "auto",
        chunk: int | None = None,
    ) -> None:
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        own_chunk = CHUNK_CPU if self.device.type == "cpu" else CHUNK_GPU
        self.chunk = own_chunk if chunk is None else chunk
        if self.chunk < 1:
            raise ValueError(f"chunk = {chunk}: set it to at least 1")
        self.model: Any = _load(model, pretrained or _default_weights(model), self.device)
        self.tokenizer = open_clip.get_tokenizer(model)
        self._cfg = _preprocessing(self.model)
        self._text_by_prompt: dict[str, torch.Tensor] = {}
        self.num_text_runs = 0  # of the text tower

    def score(self, images_BCHW: np.ndarray, prompts: list[str]) -> np.ndarray:
        """float32 (B, 3, H, W) in [0, 1] and B prompts -> float32 (B,)."""
        scores = [np.zeros(0, dtype=np.float32)]
        with torch.inference_mode(), _same_attention_as_with_grad():
            for images, text, used in self._chunks(images_BCHW, prompts):
                scores.append(self.similarity(images, text)[:used].cpu().numpy())
        return np.concatenate(scores)

    def score_and_grad(self, images_BCHW: np.ndarray, prompts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Scores (B,) and d score / d image (B, 3, H, W), both float32.

        The scores are those of `score`, bit for bit. One backward of the sum over a chunk: no image's score
        depends on another, so the gradients stay apart.
        """
        scores, grads = (
            [np.zeros(0, dtype=np.float32)],
            [np.zeros((0, *images_BCHW.shape[1:]), dtype=np.float32)],
        )
        for images, text, used in self._chunks(images_BCHW, prompts):
            images.requires_grad_(True)
            similarity = self.similarity(images, text)
            (grad,) = torch.autograd.grad(similarity.sum(), images)
            scores.append(similarity[:used].detach().cpu().numpy())
            grads.append(grad[:used].cpu().numpy())
        return np.concatenate(scores), np.concatenate(grads)

    def similarity(self, images_BCHW: torch.Tensor, text_BD: torch.Tensor) -> torch.Tensor:
        """Images in [0, 1] and unit text embeddings -> cosines (B,). The dtype is that of the model."""
        inputs = preprocess(images_BCHW, self._cfg["size"], self._cfg["mean"], self._cfg["std"], self._cfg["fit"])
        return (self.model.encode_image(inputs, normalize=True) * text_BD).sum(dim=-1)

    def encode_text(self, prompt: str) -> torch.Tensor:
        """Unit embedding (D,), cached. open_clip cuts a prompt that is longer than the model's context."""
        if prompt not in self._text_by_prompt:
            if len(self._text_by_prompt) >= MAX_CACHED_PROMPTS:
                del self._text_by_prompt[next(iter(self._text_by_prompt))]  # the oldest
            tokens = self.tokenizer([prompt]).to(self.device)
            with torch.no_grad():  # not inference_mode: its tensors refuse to take part in a backward
                self._text_by_prompt[prompt] = self.model.encode_text(tokens, normalize=True)[0]
            self.num_text_runs += 1
        return self._text_by_prompt[prompt]

    def _chunks(self, images_BCHW: np.ndarray, prompts: list[str]) -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
        """(`chunk` images, their `chunk` texts, how many of them were asked for)."""
        if len(prompts) != len(images_BCHW):
            raise ValueError(f"{len(images_BCHW)} images but {len(prompts)} prompts; give one for each")
        for start in range(0, len(images_BCHW), self.chunk):
            used = min(self.chunk, len(images_BCHW) - start)
            rows = start + np.minimum(np.arange(self.chunk), used - 1)  # the last image repeated
            images = torch.from_numpy(images_BCHW[rows].astype(np.float32, copy=False)).to(self.device)
            yield images, torch.stack([self.encode_text(prompts[row]) for row in rows]), used


def toy_clip(device: str = "auto", chunk: int | None = None) -> ClipScorer:
    """The CLIP that ships with the package, which knows coloured shapes and nothing else."""
    from rayalign.toy import toy_path

    return ClipScorer(model=f"local-dir:{toy_path('toy-clip')}", device=device, chunk=chunk)


@contextmanager
def _same_attention_as_with_grad() -> Iterator[None]:
    """Without gradients torch's attention takes a fused path, whose last bits differ from the guided score's."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _default_weights(model: str) -> str | None:
    return "laion2b_s32b_b79k" if model == "ViT-H-14" else None


def _load(model: str, pretrained: str | None, device: torch.device) -> torch.nn.Module:
    """The model in float32, frozen and in eval mode."""
    try:
        clip = open_clip.create_model(model, pretrained, precision="fp32", device=device, require_pretrained=True)
    except (RuntimeError, ValueError, OSError, AssertionError) as error:  # name, tag, file, network, other shapes
        raise ValueError(f"open_clip could not load model {model!r}, pretrained {pretrained!r}: {error}") from error
    return clip.eval().requires_grad_(False)


def _preprocessing(clip: torch.nn.Module) -> dict:
    """What the model was trained on: target size, mean, std, fit.

    Raises:
        ValueError: another resize than `preprocess` knows; scores would be silently off.
    """
    cfg = open_clip.get_model_preprocess_cfg(clip)
    fit, interpolation = cfg.get("resize_mode", "shortest"), cfg.get("interpolation", "bicubic")
    if fit not in ("shortest", "squash") or interpolation != "bicubic":
        raise ValueError(
            f"model resizes by {fit} with {interpolation}; choose one with bicubic shortest or bicubic squash"
        )
    size = cfg["size"]
    size_HW = (size, size) if isinstance(size, int) else tuple(size)
    return {"size": size_HW, "mean": cfg["mean"], "std": cfg["std"], "fit": fit}
