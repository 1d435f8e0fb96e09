"""The tokenizers of the toy models, made of nothing but the caption words: CLIP's byte-level BPE, T5's unigrams."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from rayalign.toy import shapes

if TYPE_CHECKING:
    from transformers import CLIPTokenizer, T5TokenizerFast

LENGTH = 32
"""Tokens in a padded prompt (the real CLIP has 77); a caption of two shapes needs about 14."""

SHORT = 16
"""Tokens in a padded prompt of the toy SD 3, whose transformer pays for each of them in every block."""

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
T5_PAD, T5_END, T5_UNKNOWN, T5_SPACE = "<pad>", "</s>", "<unk>", "\u2581"


def byte_letters() -> list[str]:
    """The printable letter that byte-level BPE uses for each of the 256 bytes.

    Bytes that print well stand for themselves; the others take the code points from 256 on.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]


def learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Merges that make one token of each word: always the commonest pair, the first in order on a tie."""
    split = [[*word[:-1], word[-1] + WORD_END] for word in words]
    merges: list[tuple[str, str]] = []
    while True:
        counts: dict[tuple[str, str], int] = {}
        for parts in split:
            for pair in pairwise(parts):
                counts[pair] = counts.get(pair, 0) + 1
        if not counts:
            return merges
        best = max(sorted(counts), key=lambda pair: counts[pair])
        merges.append(best)
        split = [merge(parts, best) for parts in split]


def merge(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """`parts` with every neighbouring `pair` joined, from the left."""
    joined: list[str] = []
    for part in parts:
        if joined and (joined[-1], part) == pair:
            joined[-1] += part
        else:
            joined.append(part)
    return joined


def build_tokenizer(folder: Path, length: int = LENGTH) -> CLIPTokenizer:
    """Write the tokenizer's files into `folder` and return it as CLIPTokenizer loads it from there.

    `length` is what a prompt is padded to.

    Any text has tokens: what is not a caption word falls back to smaller pieces and at last to single bytes. END has
    the highest number because open_clip takes a text's features from where the highest number is.
    """
    from transformers import CLIPTokenizer

    letters = byte_letters()
    merges = learn_merges(shapes.words())
    tokens = [*letters, *(letter + WORD_END for letter in letters), *(a + b for a, b in merges), START, END]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: number for number, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    _write_json(folder / "special_tokens_map.json", special)
    config = {
        **special,
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": length,
        "do_lower_case": True,
    }
    _write_json(folder / "tokenizer_config.json", config)
    return CLIPTokenizer.from_pretrained(folder)


def t5_pieces() -> list[tuple[str, float]]:
    """(piece, log-probability) in T5's order: special tokens, then one piece a caption word, then single letters.

    A caption word is likelier than its letters, so it stays whole; other text in ASCII falls back to letters.
    """
    special = [(token, 0.0) for token in (T5_PAD, T5_END, T5_UNKNOWN)]
    letters = [(T5_SPACE, -8.0), *((chr(code), -10.0) for code in range(33, 127))]
    return [*special, *((T5_SPACE + word, -4.0) for word in shapes.words()), *letters]


def build_t5_tokenizer(folder: Path) -> T5TokenizerFast:
    """Write the tokenizer's files into `folder` and return it as T5TokenizerFast loads it from there."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import T5TokenizerFast

    pieces = t5_pieces()
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    spaces = pre_tokenizers.Metaspace(replacement=T5_SPACE, prepend_scheme="always", split=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), spaces])
    tokenizer.decoder = decoders.Metaspace(replacement=T5_SPACE, prepend_scheme="always", split=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", T5_END], pair=["$A", T5_END, "$B", T5_END], special_tokens=[(T5_END, 1)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "T5TokenizerFast",
        "pad_token": T5_PAD,
        "eos_token": T5_END,
        "unk_token": T5_UNKNOWN,
        "extra_ids": 0,
        "model_max_length": SHORT,
    }
    _write_json(folder / "tokenizer_config.json", config)
    return T5TokenizerFast.from_pretrained(folder)


def _write_json(path: Path, value: Mapping[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
