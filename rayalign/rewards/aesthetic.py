"""LAION aesthetic predictor v2: how well people rate pictures like this one, whatever it was asked to show.

Shape letters: B images, C H W channels, height, width, D embedding.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import torch
from transformers import CLIPVisionModelWithProjection

from rayalign.rewards.pixels import Preprocessing
from rayalign.rewards.sources import AESTHETIC_HEAD, AESTHETIC_HEAD_SHA256, AESTHETIC_MODEL
from rayalign.rewards.tower import TowerScorer, frozen
from rayalign.rewards.transformers_clip import load_clip
from rayalign.rewards.weights import Weights, find_address, find_file, find_folder

LAYERS = (0, 2, 4, 6, 7)  # numbers of the linear layers in the file; dropout was between the first four


class AestheticScorer(TowerScorer):
    """MLP(e / |e|), e the image's embedding by CLIP ViT-L/14.

    See "LAION-Aesthetics" by Schuhmann (https://laion.ai/blog/laion-aesthetics/). The MLP was trained without
    activations, so that in eval mode it is one affine map.

    Args:
        model: a hub id, or a folder with a CLIP of transformers; its image tower is taken.
        head: the MLP's file, or a folder that holds it; fetched once from its repository where null.
        device: as in `TowerScorer`, like the next two.
        dtype: float32 or bfloat16.
        chunk: images in one run of the tower.

    Raises:
        ValueError: weights are missing, or the head is not of that model.
    """

    needs_prompt: ClassVar[bool] = False
    unit: ClassVar[str] = "LAION aesthetic v2: predicted rating, 1 to 10; about 3 to 7.5"
    num_tokens: ClassVar[int | None] = None
    licence: ClassVar[str] = "Apache-2.0 (head), MIT (CLIP)"
    weights: ClassVar[tuple[Weights, ...]] = (AESTHETIC_MODEL, AESTHETIC_HEAD)

    def __init__(
        self,
        model: str = AESTHETIC_MODEL.source,
        head: str | None = None,
        device: str = "auto",
        dtype: str = "float32",
        chunk: int | None = None,
    ) -> None:
        super().__init__(device, dtype, chunk)
        file = _head_file(head)
        folder = find_folder("model", model, AESTHETIC_MODEL.files)
        self.head = frozen(load_head(file), self.device)
        self.model = load_clip(CLIPVisionModelWithProjection, "model", folder, self.device)
        wanted, given = self.head[0].in_features, self.model.config.projection_dim
        if wanted != given:
            fix = "set the head that was trained on this model"
            raise ValueError(f"head = {str(file)!r}: takes {wanted} numbers, model {model!r} gives {given}; {fix}")
        size = self.model.config.image_size
        self.preprocessing = Preprocessing((size, size))

    def score_tensors(self, images_BCHW: torch.Tensor, prompts: list[str]) -> torch.Tensor:
        """Images in [0, 1] -> ratings (B,). The dtype is that of model and head."""
        return self.head(self.unit_images(images_BCHW))[:, 0]

    def image_features(self, inputs_BCHW: torch.Tensor) -> torch.Tensor:
        return self.model(pixel_values=inputs_BCHW).image_embeds


def _head_file(head: str | None) -> Path:
    if head is None:
        return find_address("head", AESTHETIC_HEAD.source, AESTHETIC_HEAD_SHA256)
    return find_file("head", head, AESTHETIC_HEAD.files[0])


def load_head(file: Path) -> torch.nn.Sequential:
    """The MLP's linear layers, D -> 1024 -> 128 -> 64 -> 16 -> 1 in the real file; any widths will do.

    Raises:
        ValueError: not a file of this kind.
    """
    expected = {f"layers.{number}.{part}" for number in LAYERS for part in ("weight", "bias")}
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        if set(state) != expected:
            raise ValueError(f"it holds {sorted(state)}")
        layers = torch.nn.Sequential()
        for number in LAYERS:
            weight = state[f"layers.{number}.weight"]
            layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
            layer.load_state_dict({"weight": weight, "bias": state[f"layers.{number}.bias"]})
            layers.append(layer)
    except Exception as error:  # a file of any other kind can raise anything
        wanted = f"the state of an MLP with layers {', '.join(map(str, LAYERS))}, as {AESTHETIC_HEAD.files[0]} is"
        raise ValueError(f"head = {str(file)!r}: cannot be loaded: {error}; set {wanted}") from error
    return layers
