"""PickScore: a CLIP ViT-H/14 tuned on what users of a web application picked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

from rayalign.rewards.pixels import Preprocessing
from rayalign.rewards.sources import PICKSCORE_MODEL, PICKSCORE_PROCESSOR
from rayalign.rewards.tower import TextTowerScorer
from rayalign.rewards.transformers_clip import load_clip, projected
from rayalign.rewards.weights import Weights, find_folder

BICUBIC = 3  # Pillow's number, which processors write


class PickScorer(TextTowerScorer):
    """exp(logit_scale) cos(text, image).

    See "Pick-a-Pic" by Kirstain et al. (https://arxiv.org/abs/2305.01569), section 4. The same number circulates as
    bare cosine (about 0.21) and divided by 26; this is the model's own logit.

    Args:
        model: a hub id, or a folder with a CLIPModel of transformers.
        processor: a hub id, or a folder with its tokenizer and image preprocessing.
        device: as in `TowerScorer`, like the next two.
        dtype: float32 or bfloat16.
        chunk: images in one run of the tower.

    Raises:
        ValueError: weights or processor are missing, or do not fit.
    """

    unit: ClassVar[str] = "PickScore v1: logit, 100 x cosine of text and image; about 18 to 26"
    num_tokens: ClassVar[int] = 77
    licence: ClassVar[str] = "MIT (its repository; the weights' page states none)"
    weights: ClassVar[tuple[Weights, ...]] = (PICKSCORE_MODEL, PICKSCORE_PROCESSOR)

    def __init__(
        self,
        model: str = PICKSCORE_MODEL.source,
        processor: str = PICKSCORE_PROCESSOR.source,
        device: str = "auto",
        dtype: str = "float32",
        chunk: int | None = None,
    ) -> None:
        super().__init__(device, dtype, chunk)
        folder = find_folder("model", model, PICKSCORE_MODEL.files)
        processor_folder = find_folder("processor", processor, PICKSCORE_PROCESSOR.files)
        self.model = load_clip(CLIPModel, "model", folder, self.device)
        self.tokenizer, self.preprocessing = _processor(processor_folder)
        size = self.model.config.vision_config.image_size
        if self.preprocessing.size_HW != (size, size):
            raise ValueError(
                f"processor = {processor!r}: makes images of {self.preprocessing.size_HW}, the model takes {size}; "
                f"set the processor that belongs to the model"
            )

    def score_tensors(self, images_BCHW: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        """Images in [0, 1] and their prompts -> logits (B,). The dtype is that of the model."""
        return self.model.logit_scale.exp() * self.cosines(images_BCHW, prompts)

    def image_features(self, inputs_BCHW: torch.Tensor) -> torch.Tensor:
        return projected(self.model.get_image_features(pixel_values=inputs_BCHW))

    def text_features(self, prompt: str) -> torch.Tensor:
        limit = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer([prompt], truncation=True, max_length=limit, return_tensors="pt").to(self.device)
        answer = self.model.get_text_features(tokens["input_ids"], attention_mask=tokens["attention_mask"])
        return projected(answer)[0]


def _processor(folder: Path) -> tuple[Any, Preprocessing]:
    """Tokenizer, and what the processor does to an image.

    Raises:
        ValueError: it cannot be read, or does something else than `preprocess` can.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        settings = CLIPImageProcessor.from_pretrained(folder).to_dict()
        size, crop = settings["size"]["shortest_edge"], settings["crop_size"]
        size_HW = (crop["height"], crop["width"])
    except Exception as error:  # files of any other kind can raise anything
        raise ValueError(f"processor = {str(folder)!r}: no processor of a CLIP: {error!r}") from error
    if int(settings["resample"]) != BICUBIC or size_HW != (size, size):
        raise ValueError(
            f"processor = {str(folder)!r}: resizes to {size} by method {int(settings['resample'])} and crops to "
            f"{size_HW}; set one that resizes by bicubic (3) and crops to the same size"
        )
    return tokenizer, Preprocessing(size_HW, settings["image_mean"], settings["image_std"], odd_crop="floor")
