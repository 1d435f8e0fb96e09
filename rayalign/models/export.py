"""A policy as what every diffusers user can load: a LoRA file, or a whole pipeline's folder."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch

from rayalign.config import LoraConfig, RunConfig
from rayalign.errors import WeightsError
from rayalign.models.families import resolve_path
from rayalign.models.family import Family
from rayalign.models.full_weights import FullWeightSets
from rayalign.models.weight_sets import WeightArrays
from rayalign.whole_files import share

LORA_FILE = "pytorch_lora_weights.safetensors"
LORA_FOLDER = "lora"
MODEL_FOLDER = "model"


def save_policy(folder: Path, config: RunConfig, family: Family, arrays: WeightArrays) -> Path:
    """Writes what was tuned under the run's `folder` and returns where: `lora/`, or `model/` of a full fine-tuning."""
    if isinstance(config.model.tuning, LoraConfig):
        return save_lora(folder / LORA_FOLDER, family, arrays).parent
    return save_model(folder / MODEL_FOLDER, config.model.path, family, arrays)


def save_lora(folder: Path, family: Family, arrays: WeightArrays) -> Path:
    """Writes pytorch_lora_weights.safetensors with diffusers' own writer. Alpha equals rank, so the scale is 1.

    `pipe.load_lora_weights(folder)` reads it.
    """
    import diffusers

    layers = {f"{name}.weight": torch.from_numpy(np.array(value)) for name, value in arrays.items()}
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = getattr(diffusers, family.pipeline_class)
    pipeline.save_lora_weights(
        folder, **{f"{family.denoiser_part}_lora_layers": layers}, weight_name=LORA_FILE, safe_serialization=True
    )
    return share(folder / LORA_FILE)


def save_model(folder: Path, base: str, family: Family, arrays: WeightArrays) -> Path:
    """Writes the pipeline `base` with the tuned denoiser, all in float32. `from_pretrained(folder)` reads it.

    Raises WeightsError if the arrays are no weights of its denoiser.
    """
    _quiet()
    pipe = family.load(resolve_path(base), torch.float32)
    denoiser = getattr(pipe, family.denoiser_part)
    FullWeightSets(denoiser, ("policy",), "device", torch.float32).load("policy", arrays)
    pipe.save_pretrained(folder, safe_serialization=True)
    return _shared(folder)


def save_fused(
    folder: Path, base: str, family: Family, arrays: WeightArrays, dtype: torch.dtype = torch.float32
) -> Path:
    """Writes the pipeline `base` with the LoRA added to its weights in float32, then rounded to `dtype`.

    Raises WeightsError if diffusers binds none of the LoRA's weights to it.
    """
    _quiet()
    pipe = family.load(resolve_path(base), torch.float32)
    with tempfile.TemporaryDirectory() as lora:
        pipe.load_lora_weights(save_lora(Path(lora), family, arrays).parent, adapter_name="policy")
    if not any("policy" in names for names in pipe.get_list_adapters().values()):
        raise WeightsError(f"the LoRA binds to no module of {base}")
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    pipe.to(dtype).save_pretrained(folder, safe_serialization=True)
    return _shared(folder)


def _quiet() -> None:
    """Loading bars would run through a job's own few lines."""
    import diffusers.utils.logging
    import transformers.utils.logging

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


def _shared(folder: Path) -> Path:
    for file in folder.rglob("*.safetensors"):
        share(file)
    return folder
