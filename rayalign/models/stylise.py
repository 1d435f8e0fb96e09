"""Pictures in a style that the prompt does not name, by diffusers: image-to-image on the base's own weights.

Shape letters: B images, H W pixels.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rayalign.config.style import ImageToImageStyle
from rayalign.errors import ConfigError
from rayalign.models.family import Family
from rayalign.models.text_to_image import TextToImage


class ImageToImage:
    """The family's own image-to-image pipeline around a model that is loaded already: no second copy of its weights.

    The prompt and the words of the style go in as embeddings, so that the text encoders may stand where they do.
    """

    def __init__(self, model: TextToImage, style: ImageToImageStyle, num_steps: int) -> None:
        self._model, self._style, self._num_steps = model, style, num_steps
        pipeline = image_to_image_class(model.family)
        takes = inspect.signature(pipeline.__init__).parameters
        parts = {name: part for name, part in model.pipe.components.items() if name in takes}
        without = {name: None for name in parts if name.startswith(("text_encoder", "tokenizer"))}
        off = {name: False for name in ("requires_safety_checker", "add_watermarker") if name in takes}
        self._pipe = pipeline(**parts | without | off)
        self._pipe.set_progress_bar_config(disable=True)

    @torch.no_grad()
    def __call__(self, images_BHWC: np.ndarray, prompts: list[str], seeds: Sequence[int]) -> np.ndarray:
        """uint8 (B, H, W, 3) -> the same, restyled; one seed for the noise of each."""
        model, text = self._model, self._model.encode([prompt + self._style.suffix for prompt in prompts])
        words = {
            "prompt_embeds": text.embeds,
            "negative_prompt_embeds": text.negative_embeds,
            "pooled_prompt_embeds": text.pooled,
            "negative_pooled_prompt_embeds": text.negative_pooled,
        }
        with model.weights.using("initial"):
            drawn = self._pipe(
                image=images_BHWC.astype(np.float32) / 255,
                strength=self._style.strength,
                num_inference_steps=self._num_steps,
                guidance_scale=model.guidance_scale,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds],
                output_type="np",
                **{name: value for name, value in words.items() if value is not None},
            ).images
        vae, kept = model.pipe.vae, model.family.vae_dtype(model.dtype)
        if vae.dtype != kept:
            vae.to(kept)  # the pipeline casts it to half precision after use, in which it overflows
        return (np.asarray(drawn) * 255).round().astype(np.uint8)


def image_to_image_class(family: Family) -> Any:
    """The pipeline in diffusers. Raises ConfigError where the family has none."""
    import diffusers

    name = f"{family.pipeline_class.removesuffix('Pipeline')}Img2ImgPipeline"
    if not hasattr(diffusers, name):
        fix = f"diffusers has no image-to-image pipeline for the family {family.name}; set another style"
        raise ConfigError("style.kind", "img2img", fix)
    return getattr(diffusers, name)
