"""Real files of each kind that a run reads, damaged so that it matters, and the setting that names them.

A flipped bit inside a weight is another weight, which no check can tell; so weights are cut short, emptied, put in
another format or damaged in their header. Files of text are damaged anywhere, where the draw makes them unreadable.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.numpy import load_file, save_file

from rayalign.toy import toy_path

Tree = dict[str, Any]
TOYS = ("toy-sd15", "toy-sdxl", "toy-sd3")
PARTS = {"toy-sd15": "unet", "toy-sdxl": "unet", "toy-sd3": "transformer"}
BASE: Tree = {"model": {"path": "stub"}, "rewards": [{"scorer": "jpeg"}], "prompts": {"source": "animals"}}


class Damaged(NamedTuple):
    """`settings` of a run that reads the damaged `file`; the error must hold one of `says`."""

    settings: Tree
    file: Path
    says: tuple[str, ...]
    how: str


def damaged_files(folder: Path, count: int, seed: int = 0) -> list[Damaged]:
    draw = random.Random(seed)
    found = []
    for i in range(count):
        place = folder / str(i)
        place.mkdir()
        found.append(WAYS[i % len(WAYS)](place, draw))
    return found


def cut(file: Path, draw: random.Random) -> str:
    """Loses its end: a copy that was broken off."""
    data = file.read_bytes()
    kept = draw.randrange(len(data))
    file.write_bytes(data[:kept])
    return f"{file.name} cut to {kept} of {len(data)} bytes"


def zeroed(file: Path, draw: random.Random, size: int = 64) -> str:
    """As long as before, its beginning zeros: a block that never reached the disk."""
    data = bytearray(file.read_bytes())
    data[: min(size, len(data))] = bytes(min(size, len(data)))
    file.write_bytes(data)
    return f"{file.name} zeroed at its beginning"


def flipped(file: Path, draw: random.Random) -> str:
    """Bits of the first bytes, where the length of the header and its beginning are."""
    data = bytearray(file.read_bytes())
    for place in draw.sample(range(2, 9), 3):
        data[place] ^= 0x80
    file.write_bytes(data)
    return f"{file.name} with bits flipped in its header"


def replaced(file: Path, draw: random.Random) -> str:
    """An error page, or a Git LFS pointer, under the file's name."""
    pointer = b"version https://git-lfs.github.com/spec/v1\nsize 3\n"
    page = draw.choice([b"<html>404</html>", pointer, b"", b"null", b"[]"])
    file.write_bytes(page)
    return f"{file.name} is {page[:20]!r}"


BYTES: tuple[Callable[[Path, random.Random], str], ...] = (cut, zeroed, flipped, replaced)


def model_copy(place: Path, toy: str) -> Path:
    return Path(shutil.copytree(toy_path(toy), place / "model"))


def weights_of_a_model(place: Path, draw: random.Random) -> Damaged:
    toy = draw.choice(TOYS)
    model = model_copy(place, toy)
    file = draw.choice(sorted(model.glob("*/*.safetensors")))
    how = draw.choice(BYTES)(file, draw)
    return Damaged({"model": {"path": str(model)}}, file, (file.name, str(file.parent)), how)


def tensors_of_a_model(place: Path, draw: random.Random) -> Damaged:
    """A whole file that lacks a tensor, or has one in another shape: diffusers would go on with random weights."""
    toy = draw.choice(TOYS)
    model = model_copy(place, toy)
    file = draw.choice(sorted(model.glob("*/*.safetensors")))
    tensors = load_file(file)
    name = draw.choice(sorted(tensors))
    if draw.random() < 0.5:
        del tensors[name]
    else:
        tensors[name] = np.zeros((3, *tensors[name].shape), np.float32)
    save_file(tensors, file)
    return Damaged({"model": {"path": str(model)}}, file, (str(file.parent),), f"{file} without a right {name}")


def json_of_a_model(place: Path, draw: random.Random) -> Damaged:
    model = model_copy(place, draw.choice(TOYS))
    read = [p for p in sorted(model.rglob("*.json")) if p.name != "special_tokens_map.json"]
    file = draw.choice(read)
    how = draw.choice((cut, zeroed, replaced))(file, draw)
    return Damaged({"model": {"path": str(model)}}, file, (file.name, str(model)), how)


def config_of_a_model(place: Path, draw: random.Random) -> Damaged:
    """JSON still, but of a part that does not fit the others."""
    toy = draw.choice(TOYS)
    model, unet = model_copy(place, toy), PARTS[toy]
    part, name, value = draw.choice(
        [
            ("vae", "latent_channels", 16),
            ("vae", "block_out_channels", [16]),
            (unet, "in_channels", 9),
            ("text_encoder", "hidden_size" if toy != "toy-sd3" else "projection_dim", 8),
            ("text_encoder", "num_hidden_layers", 7),
            (unet, "layers_per_block" if toy != "toy-sd3" else "num_layers", 9),
        ]
    )
    file = model / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {name: value}))
    return Damaged({"model": {"path": str(model)}}, file, (str(model),), f"{part}'s {name} = {value}")


def merges_of_a_model(place: Path, draw: random.Random) -> Damaged:
    model = model_copy(place, draw.choice(TOYS))
    file = draw.choice(sorted(model.glob("*/merges.txt")))
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[: draw.randrange(len(lines) - 1)]) + "\n")
    return Damaged({"model": {"path": str(model)}}, file, ("merges.txt",), "merges.txt cut at a line")


def part_missing(place: Path, draw: random.Random) -> Damaged:
    toy = draw.choice(TOYS)
    model = model_copy(place, toy)
    part = draw.choice([PARTS[toy], "vae", "text_encoder", "tokenizer", "scheduler"])
    gone = draw.choice([model / part, *(model / part).iterdir()])
    if gone.name == "special_tokens_map.json" or (part == "tokenizer" and gone.name == "tokenizer_config.json"):
        gone = model / part
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    return Damaged({"model": {"path": str(model)}}, gone, (str(model),), f"no {gone.name} in {part}")


def another_vae(place: Path, draw: random.Random) -> Damaged:
    vae = Path(shutil.copytree(toy_path("toy-sdxl") / "vae", place / "vae"))
    file = vae / "config.json"
    change: Tree = draw.choice(
        [{"latent_channels": 16}, {"scaling_factor": 0.13025}, {"block_out_channels": [16, 24]}, {"_class_name": "VQ"}]
    )
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    return Damaged({"model": {"path": "toy-sdxl", "vae": str(vae)}}, file, ("model.vae",), f"another VAE: {change}")


def prompt_file(place: Path, draw: random.Random) -> Damaged:
    suffix = draw.choice([".txt", ".jsonl", ".parquet"])
    file = place / f"prompts{suffix}"
    words = [f"a picture of thing number {i}" for i in range(50)]
    if suffix == ".parquet":
        pq.write_table(pa.table({"prompt": words}), file)
        how = draw.choice((cut, zeroed, replaced))(file, draw)
    elif suffix == ".jsonl":
        file.write_text("\n".join(json.dumps({"prompt": word}) for word in words))
        data = bytearray(file.read_bytes())
        data[draw.choice([i for i, byte in enumerate(data) if byte == ord("{")])] = draw.choice(b"x\0\xff")
        file.write_bytes(data)
        how = "a line that is no JSON"
    else:
        lines: list[bytes] = [word.encode() for word in words]
        bad = [b"caf\xe9", b"a\0b", b"\x89PNG\r\n\x1a\n\0", b"x" * 2_000_000, "a cat".encode("utf-16")]
        lines[draw.randrange(50)] = draw.choice(bad)
        file.write_bytes(b"\n".join(lines))
        how = "a line that is no prompt"
    return Damaged({"prompts": {"source": str(file)}}, file, (str(file),), how)


def preference_set(place: Path, draw: random.Random) -> Damaged:
    file = place / "pairs.parquet"
    columns: Tree = {"caption": ["a"] * 9, "jpg_0": [b"x"] * 9, "jpg_1": [b"y"] * 9, "label_0": [1.0] * 9}
    columns["label_1"] = [0.0] * 9
    if draw.random() < 0.5:
        name = draw.choice(sorted(columns))
        change: Tree = draw.choice([{}, {name: [[1, 2]] * 9}])
        pq.write_table(pa.table({k: v for k, v in columns.items() if k != name} | change), file)
        how = f"no right column {name}"
    else:
        pq.write_table(pa.table(columns), file)
        how = draw.choice((cut, replaced))(file, draw)
    pairs = {"kind": "dataset", "path": str(file)}
    return Damaged({"pairs": pairs, "sampler": {"guidance_scale": 1.0}}, file, (str(file),), how)


def scorer_checkpoint(place: Path, draw: random.Random) -> Damaged:
    """Of a CLIP that the user names: safetensors, or a pickle of torch's."""
    file = place / draw.choice(["clip.safetensors", "clip.pt", "clip.bin"])
    weights = torch.arange(1000.0)
    if file.suffix == ".safetensors":
        save_file({"a": weights.numpy()}, file)
        how = draw.choice(BYTES)(file, draw)
    else:
        torch.save({"a": weights}, file)
        how = draw.choice((cut, zeroed, replaced))(file, draw)
        if how.endswith("beginning"):  # an archive is found from its end: the start alone is no damage
            how = cut(file, draw)
    options = {"model": "ViT-B-32", "pretrained": str(file)}
    return Damaged({"rewards": [{"scorer": "clip", "options": options}]}, file, (file.name,), how)


def config_of_the_run(place: Path, draw: random.Random) -> Damaged:
    """config.yaml in the run's own folder, as a kill or an editor left it."""
    file = place / "runs" / "again" / "config.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(
        draw.choice(["", "iterations: [", "name: x\nname: y\n", "seed: \0", "iterations: many\n", "trian: {lr: 1}\n"])
    )
    return Damaged({"output": str(place / "runs"), "name": "again"}, file, ("config.yaml",), "the run's config.yaml")


Way = Callable[[Path, random.Random], Damaged]
WAYS: tuple[Way, ...] = (
    weights_of_a_model,
    tensors_of_a_model,
    json_of_a_model,
    config_of_a_model,
    merges_of_a_model,
    part_missing,
    another_vae,
    prompt_file,
    preference_set,
    scorer_checkpoint,
    config_of_the_run,
)
