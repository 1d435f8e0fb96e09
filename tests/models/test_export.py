from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rayalign.models.export import LORA_FILE, save_lora
from rayalign.models.load import resolve_path
from rayalign.sampling.images import draw_images
from tests.toys import PROMPTS, SEEDS, TOYS, model_of, nudged

SCRIPT = Path(__file__).with_name("draw_with_diffusers.py")
TWO_LEVELS = 2 / 255


@pytest.mark.parametrize("path", TOYS)
def test_plain_diffusers_draws_our_pictures_from_the_exported_lora(path: str, tmp_path: Path) -> None:
    base = shutil.copytree(resolve_path(path), tmp_path / "base")  # a folder of the user's own
    model = model_of(str(base), adapters=("policy",))
    untuned = draw_images(model, PROMPTS, SEEDS).numpy()
    arrays = nudged(model, 1, scale=0.05)
    assert save_lora(tmp_path / "lora", model.family, arrays) == tmp_path / "lora" / LORA_FILE
    model.weights.load("policy", arrays)
    tuned = draw_images(model, PROMPTS, SEEDS).numpy()
    assert np.abs(tuned - untuned).max() > 20 * TWO_LEVELS  # the LoRA shows
    prompts, out = tmp_path / "prompts.json", tmp_path / "images.npy"
    prompts.write_text(json.dumps(list(zip(PROMPTS, SEEDS, strict=True))))
    command = [sys.executable, SCRIPT, base, tmp_path / "lora", prompts, out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert np.abs(np.load(out).transpose(0, 3, 1, 2) - tuned).max() < TWO_LEVELS
