"""ImageReward: a BLIP that reads prompt and image together, and a head on it; differentiable down to the pixels.

Lives in an environment of its own (`rayalign.rewards.environments`), so nothing of its package is imported before a
scorer is made.

Shape letters: B images, C H W channels, height, width, L tokens of text, N tokens of an image, D embedding.
"""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import torch

from rayalign.rewards.pixels import Preprocessing
from rayalign.rewards.sources import IMAGEREWARD_MODEL, IMAGEREWARD_TOKENIZER
from rayalign.rewards.tower import MAX_CACHED_PROMPTS, TowerScorer, frozen
from rayalign.rewards.weights import Weights, find_folder

# A ViT-L/16 for each image: more than one gains a CPU 5%, and a GPU needs 0.25 GB an image for the gradient.
CHUNK_CPU, CHUNK_GPU = 1, 8
# A checkpoint may lack these: projections of BLIP's pretraining, which no score passes, and 0, 1, 2, ...
UNUSED_WEIGHTS = ("blip.vision_proj.", "blip.text_proj.", "blip.text_encoder.embeddings.position_ids")

Tokens = tuple[torch.Tensor, torch.Tensor]  # ids and attention mask, each (L,)


class ImageRewardScorer(TowerScorer):
    """(head(BLIP's [CLS] of the prompt, cross-attended to the image) - 0.1672) / 1.0333.

    See "ImageReward: Learning and Evaluating Human Preferences for Text-to-Image Generation" by Xu et al.
    (https://arxiv.org/abs/2304.05977). The model is the class of the package `image-reward`, which holds the two
    constants too; the images come from float pixels rather than Pillow's, for the sake of their gradient.

    A prompt cannot be encoded once for all its images, since every layer of its encoder looks at the image; it is
    tokenised once.

    Args:
        model: a hub id, or a folder that holds `ImageReward.pt` and `med_config.json`.
        tokenizer: BERT's vocabulary: a hub id, or a folder that holds `vocab.txt`.
        device: as in `TowerScorer`.
        dtype: as in `TowerScorer`; the head stays in float32.
        chunk: as in `TowerScorer`, but 1 on a CPU and 8 on a GPU where null.

    Raises:
        ValueError: not in its own environment; files that are missing or do not fit.
    """

    needs_prompt: ClassVar[bool] = True
    unit: ClassVar[str] = "ImageReward v1.0, standardised; about -2.3 to 2"
    num_tokens: ClassVar[int | None] = 35  # prompts are padded and cut to this, as in training
    licence: ClassVar[str] = "Apache-2.0"
    weights: ClassVar[tuple[Weights, ...]] = (IMAGEREWARD_MODEL, IMAGEREWARD_TOKENIZER)

    def __init__(
        self,
        model: str = IMAGEREWARD_MODEL.source,
        tokenizer: str = IMAGEREWARD_TOKENIZER.source,
        device: str = "auto",
        dtype: str = "float32",
        chunk: int | None = None,
    ) -> None:
        super().__init__(device, dtype, chunk)
        if chunk is None:
            self.chunk = CHUNK_CPU if self.device.type == "cpu" else CHUNK_GPU
        self.model: Any = frozen(_load(model, tokenizer), self.device)
        self.preprocessing = Preprocessing((224, 224))
        self._tokens_by_prompt: dict[str, Tokens] = {}

    def score_tensors(self, images_BCHW: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        """Images in [0, 1] and their prompts -> rewards (B,), in float32; in float64 if images and model are."""
        ids_BL, mask_BL = (torch.stack(parts) for parts in zip(*map(self.tokens, prompts), strict=True))
        with self._precision():
            seen_BND = self.image_features(self.preprocessing(images_BCHW))
            read_BLD = self.model.blip.text_encoder(
                ids_BL,
                attention_mask=mask_BL,
                encoder_hidden_states=seen_BND,
                encoder_attention_mask=torch.ones(seen_BND.shape[:-1], dtype=torch.long, device=self.device),
                return_dict=True,
            ).last_hidden_state
        first_BD = read_BLD[:, 0].to(torch.promote_types(read_BLD.dtype, torch.float32))
        return (self.model.mlp(first_BD)[:, 0] - self.model.mean) / self.model.std

    def image_features(self, inputs_BCHW: torch.Tensor) -> torch.Tensor:
        """What `preprocessing` made -> the tokens that the text looks at, (B, N, D)."""
        return self.model.blip.visual_encoder(inputs_BCHW)

    def tokens(self, prompt: str) -> Tokens:
        """Ids and attention mask, (35,) each; cached."""
        if prompt not in self._tokens_by_prompt:
            if len(self._tokens_by_prompt) >= MAX_CACHED_PROMPTS:
                del self._tokens_by_prompt[next(iter(self._tokens_by_prompt))]  # the oldest
            text = self.model.blip.tokenizer(
                prompt, padding="max_length", truncation=True, max_length=self.num_tokens, return_tensors="pt"
            ).to(self.device)
            self._tokens_by_prompt[prompt] = text.input_ids[0], text.attention_mask[0]
        return self._tokens_by_prompt[prompt]


def import_package() -> ModuleType:
    """The module of `image-reward` that holds its model.

    The package's own `__init__` would import its fine-tuning script and other scores, hence datasets, diffusers and
    OpenAI's clip, none of which a score needs. So the two packages on the way to the model are entered unexecuted.

    Raises:
        ValueError: it is not installed here, or not beside versions that it runs with.
    """
    try:
        for name in ("ImageReward", "ImageReward.models"):
            if name not in sys.modules:
                spec = importlib.util.find_spec(name)
                if spec is None:
                    raise ImportError(f"no package {name}")
                sys.modules[name] = importlib.util.module_from_spec(spec)
        return importlib.import_module("ImageReward.ImageReward")
    except ImportError as error:
        raise ValueError(
            f"image-reward cannot be imported here ({error}); it runs in an environment of its own, which a run starts "
            f"by itself and `rayalign scorers install imagereward` makes"
        ) from error


def _load(model: str, tokenizer: str) -> torch.nn.Module:
    """The package's model with its weights, in float32."""
    package = import_package()
    folder = find_folder("model", model, IMAGEREWARD_MODEL.files)
    weights, config = (folder / name for name in IMAGEREWARD_MODEL.files)
    try:
        with _vocabulary_from(find_folder("tokenizer", tokenizer, IMAGEREWARD_TOKENIZER.files)):
            reward = package.ImageReward(med_config=str(config))
        left = reward.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True), strict=False)
    except (RuntimeError, KeyError, TypeError, OSError, pickle.UnpicklingError) as error:
        raise ValueError(f"model = {model!r}: cannot be loaded: {error}; set ImageReward's own files") from error
    missing = [key for key in left.missing_keys if not key.startswith(UNUSED_WEIGHTS)]
    if missing:  # the package would go on with random ones
        raise ValueError(f"model = {model!r}: lacks {len(missing)} weights, {missing[0]} the first; set a whole file")
    num_words, num_embedded = len(reward.blip.tokenizer), reward.blip.text_encoder.config.vocab_size
    if num_words != num_embedded:
        raise ValueError(f"tokenizer = {tokenizer!r}: has {num_words} tokens, the model {num_embedded}; set its own")
    return reward


@contextmanager
def _vocabulary_from(folder: Path) -> Iterator[None]:
    """While it is built, the package takes BERT's vocabulary from `folder`; it asks the hub for its own otherwise."""
    blip: Any = importlib.import_module("ImageReward.models.BLIP.blip")
    bert = blip.BertTokenizer
    blip.BertTokenizer = SimpleNamespace(from_pretrained=lambda _: bert.from_pretrained(str(folder)))
    try:
        yield
    finally:
        blip.BertTokenizer = bert
