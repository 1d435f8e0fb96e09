"""What an evaluation draws with: a run's folder, a LoRA, or a whole model, each as a path."""

from __future__ import annotations

from pathlib import Path

import torch

from rayalign.config import ModelConfig, RunConfig
from rayalign.errors import ConfigError
from rayalign.models.export import LORA_FOLDER, MODEL_FOLDER
from rayalign.models.families import find_family, resolve_path
from rayalign.models.load import load_model
from rayalign.models.lora_check import check_lora_fits
from rayalign.models.merged_lora import find_lora, load_with_lora
from rayalign.models.text_to_image import TextToImage
from rayalign.toy import TOY_MODELS

RUN_FILE = "config.yaml"


def tuned_path(path: str, field: str) -> str:
    """A run's folder -> its LoRA's or its model's folder; anything else unchanged, local paths made absolute.

    Raises ConfigError, naming `field`, for a run that has saved neither yet.
    """
    folder = Path(path).expanduser()
    if path in TOY_MODELS or not folder.exists():
        return path
    if not (folder / RUN_FILE).exists():
        return str(folder.resolve())
    for name in (LORA_FOLDER, MODEL_FOLDER):
        if (folder / name).is_dir():
            return str((folder / name).resolve())
    fix = (
        f"the run has no {LORA_FOLDER}/ or {MODEL_FOLDER}/ yet; let it end, or write its newest checkpoint there: "
        f"rayalign export {path} --output {path}/{LORA_FOLDER} ({MODEL_FOLDER} where all weights are tuned)"
    )
    raise ConfigError(field, path, fix)


def is_lora(path: str) -> bool:
    """Whether the path is a LoRA's, and not a whole model's."""
    place = Path(resolve_path(path))
    return place.is_file() or (place.is_dir() and not (place / "model_index.json").exists())


def check_tuned(path: str, base: ModelConfig, field: str) -> None:
    """Raises ConfigError, naming `field`, where nothing can be drawn: no such path, a LoRA of another base, or a model
    of another family.
    """
    wanted, folder = find_family(base.path, base.family), Path(resolve_path(base.path))
    if is_lora(path):
        file = find_lora(path, field)
        if folder.is_dir():
            check_lora_fits(file, folder, wanted, field)
        return
    try:
        family = find_family(path)
    except ConfigError as error:
        raise ConfigError(field, path, error.fix) from error
    if family.name != wanted.name:
        fix = f"is of the family {family.name}, the base of {wanted.name}; the same seeds draw from other latents"
        raise ConfigError(field, path, fix)


def load_tuned(config: RunConfig, path: str, device: str | torch.device, field: str) -> TextToImage:
    """The model to draw from as `initial`. `config` is of the base; `path` as `tuned_path` gives it."""
    if is_lora(path):
        return load_with_lora(config, path, device, field=field)
    whole = config.model_copy(update={"model": config.model.model_copy(update={"path": path})})
    return load_model(whole, device)
