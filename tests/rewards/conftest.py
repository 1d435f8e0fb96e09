"""A tiny random CLIP in open_clip's local-dir format: the real loading code runs without a download."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

torch.set_num_threads(1)

WORDS = ["red", "green", "blue", "circle", "square", "a"]
MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)


@pytest.fixture(scope="session")
def tiny_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-clip")
    # open_clip takes a text's features from its highest token, so END comes last.
    vocabulary = {token: number for number, token in enumerate(["<pad>", "<unk>", *WORDS, "<end>"])}
    _write_tokenizer(folder, vocabulary)
    model_cfg = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {
            "context_length": 8,
            "vocab_size": len(vocabulary),
            "hf_tokenizer_name": "here",
            "width": 32,
            "heads": 2,
            "layers": 2,
        },
    }
    config = {"model_cfg": model_cfg, "preprocess_cfg": {"mean": MEAN, "std": STD}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    model = open_clip.model.CLIP(**model_cfg)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def _write_tokenizer(folder: Path, vocabulary: dict[str, int]) -> None:
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <end>", special_tokens=[("<end>", vocabulary["<end>"])]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="<end>")
    fast.save_pretrained(folder)


@pytest.fixture
def noisy_images() -> np.ndarray:
    """float32 (8, 3, 48, 40) in [0, 1]: noise is the hardest picture to resize. Not square; uint8 levels."""
    levels = np.random.default_rng(0).integers(0, 256, size=(8, 3, 48, 40))
    return (levels / 255).astype(np.float32)
