"""Tiny random towers in the real checkpoints' formats: the real loading code runs without a download."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessor, CLIPModel, PreTrainedTokenizerFast

from rayalign.rewards.aesthetic import AestheticScorer
from rayalign.rewards.clip import ClipScorer
from rayalign.rewards.hps import HpsV2Scorer, HpsV21Scorer
from rayalign.rewards.pickscore import PickScorer
from rayalign.rewards.tower import TowerScorer
from rayalign.toy import toy_path

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


@pytest.fixture(scope="session")
def tiny_pickscore(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of a CLIPModel and of its processor, as the hub has them apart."""
    model_folder, processor_folder = tmp_path_factory.mktemp("tiny-pickscore"), tmp_path_factory.mktemp("processor")
    tokenizer = AutoTokenizer.from_pretrained(toy_path("toy-sd15") / "tokenizer")
    tokenizer.save_pretrained(processor_folder)
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPImageProcessor(**sizes, image_mean=MEAN, image_std=STD).save_pretrained(processor_folder)
    torch.manual_seed(1)
    model = CLIPModel(tiny_clip_config(len(tokenizer), tokenizer.eos_token_id, projection_dim=16))
    with torch.no_grad():
        model.logit_scale.fill_(np.log(100.0))
    model.save_pretrained(model_folder)
    return model_folder, processor_folder


def tiny_clip_config(vocab_size: int, eos: int, projection_dim: int) -> CLIPConfig:
    # Large enough initial weights that images and prompts are told apart.
    layers = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "initializer_factor": 4.0,
    }
    text = {"vocab_size": vocab_size, "max_position_embeddings": 12, "bos_token_id": eos - 1, "eos_token_id": eos}
    return CLIPConfig(
        text_config=layers | text,
        vision_config=layers | {"image_size": 32, "patch_size": 8, "projection_dim": projection_dim},
        projection_dim=projection_dim,
        initializer_factor=4.0,
    )


@pytest.fixture(scope="session")
def tiny_hps(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """(architecture, folder of `HPS_v2_compressed.pt`): key `state_dict`, patches of 14, the tokenizer of ViT-H-14."""
    folder = tmp_path_factory.mktemp("tiny-hps")
    model_cfg = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 56, "layers": 2, "width": 32, "head_width": 16, "patch_size": 14},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    (folder / "tiny-ViT-H-14.json").write_text(json.dumps(model_cfg))
    open_clip.add_model_config(folder / "tiny-ViT-H-14.json")
    torch.manual_seed(2)
    state = open_clip.model.CLIP(**model_cfg).state_dict()  # type: ignore[arg-type]
    torch.save({"epoch": 1, "name": "hps", "state_dict": state}, folder / "HPS_v2_compressed.pt")
    return "tiny-ViT-H-14", folder


@pytest.fixture(scope="session")
def tiny_vision(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole CLIP whose images become 768 numbers, as those of ViT-L/14 do: the real head fits on it."""
    folder = tmp_path_factory.mktemp("tiny-vision")
    torch.manual_seed(3)
    CLIPModel(tiny_clip_config(vocab_size=8, eos=7, projection_dim=768)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def random_head(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An aesthetic head in the real file's format."""
    widths = (768, 1024, 128, 64, 16, 1)
    torch.manual_seed(4)
    state = {}
    for number, wide, narrow in zip((0, 2, 4, 6, 7), widths, widths[1:], strict=False):
        state[f"layers.{number}.weight"] = torch.randn(narrow, wide) / wide**0.5
        state[f"layers.{number}.bias"] = torch.randn(narrow)
    path = tmp_path_factory.mktemp("head") / "sac+logos+ava1-l14-linearMSE.pth"
    torch.save(state, path)
    return path


@pytest.fixture
def make_tower(
    tiny_clip_folder: Path,
    tiny_pickscore: tuple[Path, Path],
    tiny_hps: tuple[str, Path],
    tiny_vision: Path,
    random_head: Path,
) -> Callable:
    """`make_tower("pickscore", chunk=2)`: a tiny one of each scorer that has a tower."""

    def make(name: str, **options: object) -> TowerScorer:
        architecture, hps_folder = tiny_hps
        made: dict[str, tuple[type, dict]] = {
            "clip": (ClipScorer, {"model": f"local-dir:{tiny_clip_folder}"}),
            "pickscore": (PickScorer, {"model": str(tiny_pickscore[0]), "processor": str(tiny_pickscore[1])}),
            "hpsv2": (HpsV2Scorer, {"weights": str(hps_folder), "model": architecture}),
            "hpsv2.1": (
                HpsV21Scorer,
                {"weights": str(hps_folder / "HPS_v2_compressed.pt"), "model": architecture},
            ),
            "aesthetic": (AestheticScorer, {"model": str(tiny_vision), "head": str(random_head)}),
        }
        kind, own = made[name]
        return kind(**own, device="cpu", **options)

    return make


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
