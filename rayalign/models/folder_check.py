"""A local diffusers folder, looked through before any actor loads it: files, sizes and what must fit together.

Headers and small files only, no diffusers: a second or less for any model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rayalign.errors import ConfigError
from rayalign.models.family import Family
from rayalign.weight_files import part_files, read_json, weights_problem

FIELD = "model.path"
AGAIN = "fetch the model again"
# Of the same VAE trained on; another family's differs by a third or more, and its pictures are noise.
SCALING_TOLERANCE = 0.01


def check_folder(folder: Path, family: Family, index: dict[str, Any]) -> None:
    """Raises ConfigError, naming the file, on the first part that is damaged or does not fit the others."""
    parts = [part for part in index if part in family.required or _is_listed(index[part])]
    for part in parts:
        place = folder / part
        if not place.is_dir():
            continue  # required ones are there; T5 may be left out
        if part.startswith("tokenizer"):
            check_tokenizer(place)
        elif part == "scheduler":
            read_json(place / "scheduler_config.json")
        elif part in family.required or part.startswith("text_encoder"):
            check_part(place, "model" if part.startswith("text_encoder") else "diffusion_pytorch_model")
    _check_sizes(folder, family)


def check_part(place: Path, stem: str, field: str = FIELD) -> None:
    """config.json and the weights of one model."""
    read_json(place / "config.json", field)
    for file in part_files(place, stem):
        if problem := weights_problem(file):
            raise ConfigError(field, str(place), problem)


def check_tokenizer(place: Path) -> None:
    """JSON files that parse, and merges that make the whole vocabulary: a shorter list cuts words otherwise, silently.

    Raises ConfigError.
    """
    for file in sorted(place.glob("*.json")):
        read_json(file)
    vocab, merges = place / "vocab.json", place / "merges.txt"
    if not (place / "tokenizer.json").is_file() and not (vocab.is_file() and merges.is_file()):
        if not (place / "spiece.model").is_file():
            raise ConfigError(FIELD, str(place), f"lacks vocab.json and merges.txt, or tokenizer.json; {AGAIN}")
        return
    if not (vocab.is_file() and merges.is_file()):
        return
    try:
        lines = merges.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(FIELD, str(merges), f"cannot be read ({error}); {AGAIN}") from error
    made = {"".join(line.split()) for line in lines if len(line.split()) == 2}
    words = read_json(vocab)
    single = [word for word in words if len(word.removesuffix("</w>")) > 1 and not word.startswith("<|")]
    absent = [word for word in single if word not in made]
    if absent:
        fix = f"does not make {len(absent)} of vocab.json's {len(words)} entries, {absent[0]!r} the first; {AGAIN}"
        raise ConfigError(FIELD, str(merges), fix)


def check_other_vae(own: dict[str, Any], other: dict[str, Any], value: str) -> None:
    """Configs of the model's own VAE and of the one set in model.vae. Raises ConfigError where latents would differ."""
    kind = other.get("_class_name")
    if kind not in ("AutoencoderKL", "AutoencoderTiny"):
        raise ConfigError("model.vae", value, f"it is a {kind}; set an AutoencoderKL or AutoencoderTiny")
    for name, what in (("latent_channels", "channels"), ("factor", "pixels a side for one latent")):
        mine, theirs = (vae_factor(vae) if name == "factor" else vae.get(name, 4) for vae in (own, other))
        if mine != theirs:
            fix = f"its latents have {theirs} {what}, the model's {mine}; set a VAE of the same family"
            raise ConfigError("model.vae", value, fix)
    if kind == "AutoencoderTiny":
        return  # takes latents as the denoiser has them: its scaling is its own
    for name in ("scaling_factor", "shift_factor"):
        mine, theirs = (float(vae.get(name) or 0.0) for vae in (own, other))
        if abs(mine - theirs) > SCALING_TOLERANCE * max(abs(mine), abs(theirs)):
            fix = f"its {name} is {theirs:g}, the model's {mine:g}: a VAE of another family; set one of the same"
            raise ConfigError("model.vae", value, fix)


def vae_factor(vae: dict[str, Any]) -> int:
    """Pixels a side for one latent."""
    blocks = vae.get("decoder_block_out_channels") or vae.get("block_out_channels") or [0] * 4
    return 2 ** (len(blocks) - 1)


def _is_listed(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and entry[0] is not None


def _check_sizes(folder: Path, family: Family) -> None:
    """Widths that one part gives and another takes."""
    denoiser, vae = (read_json(folder / part / "config.json") for part in (family.denoiser_part, "vae"))
    text = [
        read_json(folder / part / "config.json")
        for part in ("text_encoder", "text_encoder_2", "text_encoder_3")
        if (folder / part / "config.json").is_file()
    ]
    for width in family.widths(text, vae, denoiser):
        _same(folder, width.giver, width.given, family.denoiser_part, width.taken, width.what)


def _same(folder: Path, giver: str, given: Any, taker: str, taken: Any, what: str) -> None:
    if given != taken:
        fix = f"{giver}/ gives {given} {what} and {taker}/ takes {taken}; they are of different models, {AGAIN}"
        raise ConfigError(FIELD, str(folder), fix)
