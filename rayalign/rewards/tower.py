"""What scorers with an image tower share: chunks of one fixed size, scores and gradients of a chunk, texts once.

Shape letters: B images, C H W channels, height, width, D embedding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch.nn import functional as F

from rayalign.rewards.pixels import Preprocessing

CHUNK_CPU, CHUNK_GPU = 8, 32
MAX_CACHED_PROMPTS = 50_000  # some 200 MB of embeddings at most, should a run make its prompts up as it goes
DTYPES = ("float32", "bfloat16")
Model = TypeVar("Model", bound=torch.nn.Module)


class TowerScorer(ABC):
    """A scorer that is a torch function of pixels.

    The image tower always runs on `chunk` images, short chunks filled up with their last one: matrix products of
    another shape round differently, and then a score would depend on which calls were batched together.

    A subclass sets `model` and `preprocessing` and says what a chunk's scores are.

    Args:
        device: `cpu`, `cuda`, ...; `auto` takes a GPU where this process sees one.
        dtype: `float32`, or `bfloat16` for the tower's matrix products (autocast; what follows the embedding stays
            in float32, where cosines need their digits).
        chunk: images in one run of the tower; 8 on a CPU and 32 on a GPU where null. Scores of different `chunk`
            may differ in their last bits.

    Raises:
        ValueError: chunk below 1, or another dtype.
    """

    differentiable: ClassVar[bool] = True
    needs_prompt: ClassVar[bool]
    model: Any
    preprocessing: Preprocessing

    def __init__(self, device: str = "auto", dtype: str = "float32", chunk: int | None = None) -> None:
        self.device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        if dtype not in DTYPES:
            raise ValueError(f"dtype = {dtype!r}: set one of {', '.join(DTYPES)}")
        self.dtype = dtype
        own_chunk = CHUNK_CPU if self.device.type == "cpu" else CHUNK_GPU
        self.chunk = own_chunk if chunk is None else chunk
        if self.chunk < 1:
            raise ValueError(f"chunk = {chunk}: set it to at least 1")

    def score(self, images_BCHW: np.ndarray, prompts: list[str]) -> np.ndarray:
        """float32 (B, 3, H, W) in [0, 1] and B prompts -> float32 (B,)."""
        scores = [np.zeros(0, dtype=np.float32)]
        with torch.no_grad(), _same_attention_as_with_grad():
            for images, rows, used in self._chunks(images_BCHW):
                scores_B = self.score_tensors(images, self._texts(prompts, rows, images_BCHW))
                scores.append(scores_B[:used].cpu().numpy())
        return np.concatenate(scores)

    def score_and_grad(self, images_BCHW: np.ndarray, prompts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Scores (B,) and d score / d image (B, 3, H, W), both float32.

        The scores are those of `score`, bit for bit. One backward of the sum over a chunk: no image's score
        depends on another, so the gradients stay apart.
        """
        scores = [np.zeros(0, dtype=np.float32)]
        grads = [np.zeros((0, *images_BCHW.shape[1:]), dtype=np.float32)]
        for images, rows, used in self._chunks(images_BCHW):
            images.requires_grad_(True)
            scores_B = self.score_tensors(images, self._texts(prompts, rows, images_BCHW))
            (grad,) = torch.autograd.grad(scores_B.sum(), images)
            scores.append(scores_B[:used].detach().cpu().numpy())
            grads.append(grad[:used].cpu().numpy())
        return np.concatenate(scores), np.concatenate(grads)

    @abstractmethod
    def score_tensors(self, images_BCHW: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        """Images in [0, 1] and their prompts -> scores (B,), in float32; in float64 if images and model are."""

    @abstractmethod
    def image_features(self, inputs_BCHW: torch.Tensor) -> torch.Tensor:
        """What `preprocessing` made -> the tower's embeddings (B, D), of any length."""

    def unit_images(self, images_BCHW: torch.Tensor) -> torch.Tensor:
        """Images in [0, 1] -> unit embeddings (B, D)."""
        with self._precision():
            features_BD = self.image_features(self.preprocessing(images_BCHW))
        return unit(features_BD)

    def _precision(self) -> AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16) if self.dtype == "bfloat16" else nullcontext()

    def _chunks(self, images_BCHW: np.ndarray) -> Iterator[tuple[torch.Tensor, np.ndarray, int]]:
        """(`chunk` images, their rows in `images_BCHW`, how many of them are not there as filling)."""
        for start in range(0, len(images_BCHW), self.chunk):
            used = min(self.chunk, len(images_BCHW) - start)
            rows = start + np.minimum(np.arange(self.chunk), used - 1)  # the last image repeated
            images = torch.from_numpy(images_BCHW[rows].astype(np.float32, copy=False)).to(self.device)
            yield images, rows, used

    def _texts(self, prompts: list[str], rows: np.ndarray, images_BCHW: np.ndarray) -> list[str]:
        if not self.needs_prompt:
            return []
        if len(prompts) != len(images_BCHW):
            raise ValueError(f"{len(images_BCHW)} images but {len(prompts)} prompts; give one for each")
        return [prompts[row] for row in rows]


class TextTowerScorer(TowerScorer):
    """A scorer that compares an image's embedding with that of its prompt, encoded once for each distinct prompt.

    The text tower runs on one prompt at a time, for the same reason as the image tower on chunks.

    Attributes:
        num_text_runs: times the text tower ran.
    """

    needs_prompt: ClassVar[bool] = True

    def __init__(self, device: str = "auto", dtype: str = "float32", chunk: int | None = None) -> None:
        super().__init__(device, dtype, chunk)
        self._text_by_prompt: dict[str, torch.Tensor] = {}
        self.num_text_runs = 0

    @abstractmethod
    def text_features(self, prompt: str) -> torch.Tensor:
        """The text tower's embedding (D,), of any length. A prompt past the token limit is cut."""

    def unit_text(self, prompt: str) -> torch.Tensor:
        """Unit embedding (D,), cached."""
        if prompt not in self._text_by_prompt:
            with torch.no_grad(), self._precision():
                features_D = self.text_features(prompt)
            self.num_text_runs += 1
            self._keep(prompt, unit(features_D))
        return self._text_by_prompt[prompt]

    def missing_texts(self, prompts: Sequence[str]) -> list[str]:
        """As in `rayalign.rewards.protocol.TextEncoder`, like the next two."""
        return [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._text_by_prompt]

    def encode_text(self, prompt: str) -> np.ndarray:
        return self.unit_text(prompt).cpu().numpy()

    def keep_text(self, prompt: str, encoding: np.ndarray) -> None:
        self._keep(prompt, torch.tensor(encoding, device=self.device))

    def _keep(self, prompt: str, text_D: torch.Tensor) -> None:
        if len(self._text_by_prompt) >= MAX_CACHED_PROMPTS:
            del self._text_by_prompt[next(iter(self._text_by_prompt))]  # the oldest
        self._text_by_prompt[prompt] = text_D

    def cosines(self, images_BCHW: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        """Images in [0, 1] and their prompts -> cosines of their embeddings (B,)."""
        texts_BD = torch.stack([self.unit_text(prompt) for prompt in prompts])
        return (self.unit_images(images_BCHW) * texts_BD).sum(dim=-1)

    def embed_prompts(self, prompts: list[str]) -> np.ndarray:
        """B prompts, at least one -> their unit embeddings, float32 (B, D)."""
        return torch.stack([self.unit_text(prompt) for prompt in prompts]).cpu().numpy()

    def embed_images(self, images_BCHW: np.ndarray) -> np.ndarray:
        """float32 (B, 3, H, W) in [0, 1], B at least 1 -> unit embeddings, float32 (B, D)."""
        with torch.no_grad(), _same_attention_as_with_grad():
            chunks = [self.unit_images(images)[:used].cpu().numpy() for images, _, used in self._chunks(images_BCHW)]
        return np.concatenate(chunks)


def unit(features: torch.Tensor) -> torch.Tensor:
    """(..., D) at length 1, in float32 or better."""
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)


def frozen(model: Model, device: torch.device) -> Model:
    """In eval mode (dropout would make scores random), without gradients of its weights."""
    return model.to(device).eval().requires_grad_(False)


@contextmanager
def _same_attention_as_with_grad() -> Iterator[None]:
    """Without gradients torch's attention takes a fused path, whose last bits differ from the guided score's."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
