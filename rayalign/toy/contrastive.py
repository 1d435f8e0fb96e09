"""The toy CLIP model and the text encoders of the toy pipelines, trained together against the same pictures.

One image tower is compared with three text towers: open_clip's own (which becomes `toy-clip`) and two of
transformers' CLIP text models (the text encoders of `toy-sd15` and `toy-sdxl`). A pipeline's
text encoders then go on learning with its UNet.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from open_clip.model import CLIP
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from rayalign.toy import shapes, training
from rayalign.toy.tokenizer import LENGTH, build_tokenizer

WIDTH = 96
FEATURES = 64
BATCH = 64
CLIP_LENGTH = 20
"""Tokens in a text of toy-clip: it computes all of them for every text, so they are few."""

CATEGORIES = (
    shapes.SHAPES,
    tuple(shapes.COLOURS),
    tuple(shapes.GROUNDS),
    ("left", "right"),
    ("top", "bottom"),
)


def clip_config(vocabulary: int) -> dict[str, object]:
    """The `model_cfg` of open_clip_config.json: a small ResNet and a small text transformer."""
    return {
        "embed_dim": FEATURES,
        "vision_cfg": {"image_size": shapes.SIDE, "layers": [1, 1, 1, 1], "width": 12, "head_width": 32},
        "text_cfg": {
            "context_length": CLIP_LENGTH,
            "vocab_size": vocabulary,
            "hf_tokenizer_name": "local",  # only asked to be set: the files lie beside the weights
            "width": 64,
            "heads": 2,
            "layers": 2,
        },
    }


def text_config(tokenizer: CLIPTokenizer, layers: int) -> CLIPTextConfig:
    """The shape of a pipeline's text encoder."""
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=FEATURES,
        num_hidden_layers=layers,
        num_attention_heads=3,
        max_position_embeddings=LENGTH,
        hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


@dataclass
class Towers:
    """The image tower with open_clip's text tower, and the two text encoders of the pipelines."""

    clip: CLIP
    first: CLIPTextModel
    first_projection: nn.Linear
    second: CLIPTextModelWithProjection
    only_clip: bool = False

    def module(self) -> nn.ModuleList:
        """What is trained, as one module."""
        if self.only_clip:
            return nn.ModuleList([self.clip])
        return nn.ModuleList([self.clip, self.first, self.first_projection, self.second])

    def text_features(self, tokens: Tensor) -> list[Tensor]:
        """Features of token rows (N, L) from each text tower in training: (N, FEATURES), not normalised."""
        by_clip = self.clip.encode_text(tokens[:, :CLIP_LENGTH])
        if self.only_clip:
            return [by_clip]
        # Attention is causal, so the columns after a caption's end change nothing and can be left
        # out; open_clip wants its full length.
        short = tokens[:, : int((tokens != tokens.max()).sum(1).max()) + 1]
        return [
            by_clip,
            self.first_projection(self.first(short).pooler_output),
            self.second(short).text_embeds,
        ]


def new_towers(tokenizer: CLIPTokenizer) -> Towers:
    """Untrained towers."""
    config = clip_config(len(tokenizer))
    clip = CLIP(**config)  # type: ignore[arg-type]
    first = CLIPTextModel(text_config(tokenizer, layers=2))
    second = CLIPTextModelWithProjection(text_config(tokenizer, layers=3))
    return Towers(clip, first, nn.Linear(WIDTH, FEATURES, bias=False), second)


def wrong_caption(caption: str, rng: random.Random) -> str:
    """A caption close to `caption` that says something else: two words swapped, or one of them replaced."""
    words = caption.split()
    found = [(i, kind) for i, word in enumerate(words) for kind in CATEGORIES if word in kind]
    if " and " in caption and rng.random() < 0.5:
        kind = rng.choice(CATEGORIES[:2])
        first, second = [i for i, word in enumerate(words) if word in kind][:2]
        words[first], words[second] = words[second], words[first]
    else:
        where, kind = rng.choice(found)
        words[where] = rng.choice([word for word in kind if word != words[where]])
    return " ".join(words)


def contrastive_loss(towers: Towers, pictures: Tensor, tokens: Tensor) -> tuple[Tensor, str]:
    """CLIP's loss, summed over text towers.

    `pictures` is (B, 3, 64, 64) in -1..1. `tokens` is (2B, LENGTH): the captions, then a wrong caption
    for each, which are more texts for a picture not to match.
    """
    count = len(pictures)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        seen = towers.clip.encode_image(pictures)
    seen = functional.normalize(seen.float(), dim=-1)
    scale = towers.clip.logit_scale.exp().clamp(max=100)
    target = torch.arange(count)
    texts = towers.text_features(tokens)
    total, right = torch.zeros(()), 0.0
    for features in texts:
        logits = scale * seen @ functional.normalize(features, dim=-1).T  # (B, 2B)
        to_picture = functional.cross_entropy(logits[:, :count].T, target)
        total = total + functional.cross_entropy(logits, target) + to_picture
        right += (logits.argmax(1) == target).float().mean().item() / len(texts)
    return total / (2 * len(texts)), f"top-1 of {2 * count}: {right:.3f}"


def save(towers: Towers, tokenizer: CLIPTokenizer, parts: Path, clip_folder: Path) -> None:
    """Write the text encoders into `parts`, and into `clip_folder` what open_clip's `local-dir:` loads."""
    build_tokenizer(clip_folder)
    config = {
        "model_cfg": clip_config(len(tokenizer)),
        "preprocess_cfg": {
            "mean": [0.5] * 3,
            "std": [0.5] * 3,
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    }
    (clip_folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    state = {name: tensor.contiguous() for name, tensor in towers.clip.state_dict().items()}
    save_file(state, clip_folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    training.store_half(clip_folder)
    if towers.only_clip:
        return
    towers.first.save_pretrained(parts / "text_encoder")
    towers.second.save_pretrained(parts / "text_encoder_2")


def train(
    parts: Path,
    clip_folder: Path,
    minutes: float,
    seed: int = 1,
    count: int = 24_000,
    log_path: Path | None = None,
    resume: bool = False,
) -> None:
    """Train all towers for `minutes`; the text encoders go into `parts`, toy-clip into `clip_folder`.

    `resume` trains toy-clip alone on: the text encoders have gone on learning in their pipelines.
    """
    log = training.Log("clip", log_path)
    torch.manual_seed(seed)
    rng = random.Random(seed)
    tokenizer = build_tokenizer(parts / "tokenizer")
    pictures, captions = training.pictures_and_captions(count, seed)
    towers = new_towers(tokenizer)
    towers.only_clip = resume
    if resume:
        state = load_file(clip_folder / "open_clip_model.safetensors")
        towers.clip.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    module = towers.module()
    rows = training.batches(count, BATCH, seed)
    log(f"parameters {[training.count_parameters(part) for part in module]}, {count} pictures")

    def loss(step: int) -> tuple[Tensor, str]:
        chosen = next(rows)
        texts = [captions[row] for row in chosen]
        texts += [wrong_caption(text, rng) for text in texts]
        tokens = tokenizer(texts, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
        return contrastive_loss(towers, training.to_unit(pictures[chosen]), tokens.input_ids)

    training.train_for(minutes, list(module.parameters()), 1e-3, loss, log, log_every=50)
    save(towers, tokenizer, parts, clip_folder)
    log("saved")
