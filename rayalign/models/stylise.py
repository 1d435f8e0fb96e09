"""Pictures in a style that the prompt does not name, by diffusers: image-to-image on the base's weights, or a LoRA.

Shape letters: B images, H W pixels.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rayalign.config import RunConfig
from rayalign.config.style import ImageToImageStyle, LoraStyle
from rayalign.errors import ConfigError
from rayalign.models.family import Family
from rayalign.models.load import assemble, base_dtype, find_family, load_other_vae, resolve_path
from rayalign.models.text_to_image import TextToImage

ADAPTER = "style"


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


def load_with_lora(config: RunConfig, style: LoraStyle, device: str | torch.device) -> TextToImage:
    """The run's base model with the style LoRA merged into its weights, to draw from as `initial`.

    Raises:
        ConfigError: no LoRA there, or one whose weights bind to no module of this model.
    """
    device = torch.device(device)
    family = find_family(config.model.path, config.model.family)
    dtype = base_dtype(config.model.dtype, device)
    pipe = family.load(resolve_path(config.model.path), dtype)
    _merge(pipe, style)
    if config.model.vae is not None:
        pipe.vae = load_other_vae(config.model.vae)
    return assemble(pipe, family, config, device, dtype, ("policy",))


def find_lora(path: str) -> Path:
    """The LoRA's one file. Raises ConfigError unless there is one, with LoRA weights in it."""
    from safetensors import SafetensorError, safe_open

    place = Path(path).expanduser()
    files = sorted(place.glob("*.safetensors")) if path and place.is_dir() else [place]
    if not path or len(files) != 1 or not files[0].is_file():
        fix = "is no .safetensors file, and no folder with just one; set the style LoRA's file"
        raise ConfigError("style.path", path, fix)
    try:
        with safe_open(files[0], framework="pt") as weights:
            names = list(weights.keys())
    except (SafetensorError, OSError) as error:
        raise ConfigError("style.path", path, f"cannot be read ({error}); set a .safetensors file") from error
    if not any("lora" in name.lower() for name in names):
        raise ConfigError("style.path", path, f"holds no LoRA weights, but {names[:2]}; set the style LoRA's file")
    return files[0]


def _merge(pipe: Any, style: LoraStyle) -> None:
    file = find_lora(style.path)
    try:
        pipe.load_lora_weights(str(file.parent), weight_name=file.name, adapter_name=ADAPTER)
    except Exception as error:  # keys of another model or another program raise anything
        fix = f"does not load into this model ({type(error).__name__}: {error}); set a LoRA made for it"
        raise ConfigError("style.path", style.path, fix) from error
    if not any(ADAPTER in names for names in pipe.get_list_adapters().values()):
        raise ConfigError("style.path", style.path, "binds to no module of this model; set a LoRA made for it")
    pipe.fuse_lora(lora_scale=style.scale)
    pipe.unload_lora_weights()
