"""Which pictures a style alignment draws of the base model, and where restyled ones made elsewhere are found.

    folder/training/000007.png        a name begins with the number of the base's picture
    folder/heldout/000007-a-dog.png
    folder/heldout/prompts.json       or {"dog.png": "a dog"}: a prompt's files in the order of their names

Either way in either part.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from rayalign.config.style import StyleConfig
from rayalign.data.images import decode
from rayalign.errors import ConfigError
from rayalign.prompts import load_prompts
from rayalign.records import derive_seed

FIELD = "style.path"
PROMPTS = "prompts.json"
Part = Literal["training", "heldout"]


class PictureRow(NamedTuple):
    """One picture of the base model's, and of its restyled twin's."""

    part: Part
    number: int  # within its part
    prompt: str
    seed: int
    turn: int  # how many pictures of this prompt come before it in its part


def picture_rows(part: Part, pictures: Iterable[tuple[str, int]]) -> list[PictureRow]:
    """(prompt, seed) of each, in order -> rows."""
    seen: Counter[str] = Counter()
    rows = []
    for number, (prompt, seed) in enumerate(pictures):
        rows.append(PictureRow(part, number, prompt, seed, seen[prompt]))
        seen[prompt] += 1
    return rows


def training_rows(config: StyleConfig, heldout: Sequence[PictureRow]) -> list[PictureRow]:
    """`num_pairs` pictures of the training prompts, taken in turn in a shuffled order. Each has a noise of its own.

    Raises:
        ConfigError: no prompt is left when the held-out ones are taken away.
    """
    taken = {row.prompt for row in heldout}
    prompts = [prompt for prompt in load_prompts(config.prompts) if prompt not in taken]
    if not prompts:
        fix = "all its prompts are held out; set prompts.heldout to another set, or evaluation.num_prompts lower"
        raise ConfigError("prompts.source", config.prompts.source, fix)
    random.Random(derive_seed(config.seed, "style prompts")).shuffle(prompts)
    numbers = range(config.num_pairs)
    return picture_rows(
        "training", [(prompts[n % len(prompts)], derive_seed(config.seed, "style picture", n)) for n in numbers]
    )


class FolderPictures:
    """The restyled pictures of a folder."""

    def __init__(self, path: str) -> None:
        self._path = Path(path).expanduser()

    def check(self, rows: Sequence[PictureRow]) -> None:
        """Raises ConfigError unless every row has its picture."""
        missing = [row for row in rows if self.find(row) is None]
        if missing:
            part, number, prompt = missing[0][:3]
            raise ConfigError(
                FIELD,
                str(self._path),
                f"{len(missing)} of {len(rows)} pictures have no restyled one, such as number {number} of {part}, "
                f"{prompt!r}; name each by its number ({part}/{number:06d}.png), or list them in {part}/{PROMPTS}",
            )

    def find(self, row: PictureRow) -> Path | None:
        """By prompt where the part has `prompts.json`, else by number."""
        if (self._path / row.part / PROMPTS).is_file():
            files = self._by_prompt[row.part].get(row.prompt)
            return files[row.turn % len(files)] if files else None
        return self._by_number[row.part].get(row.number)

    def read(self, rows: Sequence[PictureRow], resolution: int) -> np.ndarray:
        """uint8 (B, resolution, resolution, 3).

        Raises:
            ConfigError: a row has no picture, or one that does not decode.
        """
        self.check(rows)
        pictures = []
        for file in map(self.find, rows):
            assert file is not None
            try:
                pictures.append(decode(file.read_bytes(), resolution))
            except ValueError as error:
                raise ConfigError(FIELD, str(file), f"{error}; replace the file") from error
        return np.rint(np.stack(pictures).transpose(0, 2, 3, 1) * 255).astype(np.uint8)

    @cached_property
    def _by_number(self) -> dict[str, dict[int, Path]]:
        numbered = {}
        for part in ("training", "heldout"):
            files = [(int(match[0]), file) for file in self._files(part) if (match := re.match(r"\d+", file.name))]
            twice = [number for number, count in Counter(number for number, _ in files).items() if count > 1]
            if twice:
                raise ConfigError(FIELD, str(self._path / part), f"two files have the number {twice[0]}; leave one")
            numbered[part] = dict(files)
        return numbered

    @cached_property
    def _by_prompt(self) -> dict[str, dict[str, list[Path]]]:
        found: dict[str, dict[str, list[Path]]] = {}
        for part in ("training", "heldout"):
            prompts = _prompts(self._path / part / PROMPTS)
            found[part] = {}
            for file in self._files(part):
                if file.name in prompts:
                    found[part].setdefault(prompts[file.name], []).append(file)
        return found

    def _files(self, part: str) -> list[Path]:
        folder, kinds = self._path / part, Image.registered_extensions()
        return sorted(file for file in folder.glob("*") if file.suffix.lower() in kinds and file.name[0] != ".")


def _prompts(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    try:
        prompts = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ConfigError(FIELD, str(file), f'cannot be read ({error}); set {{"cat.png": "a cat"}}') from error
    if not isinstance(prompts, dict):
        raise ConfigError(FIELD, str(file), 'is no object; set {"cat.png": "a cat"}')
    return {name: str(prompt).strip() for name, prompt in prompts.items()}
