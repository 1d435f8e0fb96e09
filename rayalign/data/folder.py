"""Image pairs that lie about as files: a JSONL of paths, or a folder of winners and one of losers.

    pairs.jsonl   {"prompt": "a cat", "winner": "good/1.png", "loser": "bad/1.png"}   paths relative to the file
    folder/       winners/cat.png  losers/cat.png  and the prompts, in the first of these that there is:
                  prompts.json  {"cat.png": "a cat"} (or "cat")
                  prompts.txt   a prompt a line, in the order of the sorted names in winners/
                  winners/cat.txt

An image is opened when its row is read, so nothing is known of it before.
"""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from rayalign.data.preferences import BAD_LINE, FIELD, PreferenceRow, broken, checked, stamp_of
from rayalign.errors import ConfigError
from rayalign.records import KEPT

WINNERS, LOSERS = "winners", "losers"
JSON_PROMPTS, TEXT_PROMPTS = "prompts.json", "prompts.txt"
ROWS_A_GROUP = 100  # a file can be read alone, but what is kept of a group (latents) should not be a file a row
LINE = '{"prompt": "a cat", "winner": "good/1.png", "loser": "bad/1.png"}'


@dataclass(frozen=True)
class FileIndex:
    """A pair of paths and a prompt a row; None where the source had no such pair."""

    pairs: tuple[tuple[str | None, str, str] | None, ...]
    stamp: str

    @property
    def group_rows(self) -> Sequence[int]:
        whole, rest = divmod(len(self.pairs), ROWS_A_GROUP)
        return (ROWS_A_GROUP,) * whole + ((rest,) if rest else ())

    def read_group(self, group: int, offsets: Sequence[int]) -> list[PreferenceRow]:
        return [self._read(group * ROWS_A_GROUP + offset) for offset in offsets]

    def _read(self, number: int) -> PreferenceRow:
        pair = self.pairs[number]
        if pair is None:
            return broken(BAD_LINE)
        prompt, winner, loser = pair
        return checked(prompt, _bytes(Path(winner)), _bytes(Path(loser)))


def index_jsonl(path: Path) -> FileIndex:
    """The pairs of a JSONL file. A line that is no pair becomes a broken row.

    Raises:
        ConfigError: not UTF-8 text, or no line of it is a pair.
    """
    # Not splitlines: JSON allows U+2028 and its like inside a string.
    pairs = tuple(_pair(line, path.parent) for line in read_text(path).split("\n") if line.strip())
    if not any(pairs):
        raise ConfigError(FIELD, str(path), f"no line is a pair; set lines of {LINE}, paths relative to the file")
    return FileIndex(pairs, stamp_of([path], pairs))


def index_folder(path: Path) -> FileIndex:
    """The pairs of a folder with winners/ and losers/, in the order of their names.

    A picture without its partner becomes a broken row.

    Raises:
        ConfigError: no pictures, none of one name on both sides, no prompts, or prompts that do not match.
    """
    winners, losers = ({file.name for file in _pictures(path / side)} for side in (WINNERS, LOSERS))
    if not winners & losers:
        fix = f"{len(winners)} files in {WINNERS}/ and {len(losers)} in {LOSERS}/, no name in both; name pairs alike"
        raise ConfigError(FIELD, str(path), fix)
    names = sorted(winners | losers)
    prompts = _prompts(path, names, sorted(winners))
    pairs = tuple((prompts.get(name), str(path / WINNERS / name), str(path / LOSERS / name)) for name in names)
    # Of the folders, not of every file in them: a picture put in the place of another changes its folder.
    return FileIndex(pairs, stamp_of([path / WINNERS, path / LOSERS], pairs))


def write_folder(path: Path, rows: Iterable[PreferenceRow]) -> None:
    """Writes kept rows as winners/, losers/ and prompts.json, under a temporary name first.

    Raises:
        ValueError: a row that is not kept; this layout has no ties.
    """
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for side in (WINNERS, LOSERS):
        (partial / side).mkdir(parents=True)
    prompts = {}
    for number, row in enumerate(rows):
        if row.status != KEPT or row.winner is None or row.loser is None:
            raise ValueError(f"row {number} is {row.status}; write a parquet file, which has a place for its label")
        # One name for both, so the winner's format names it; a reader goes by the bytes.
        name = f"{number:06d}.{_suffix(row.winner)}"
        (partial / WINNERS / name).write_bytes(row.winner)
        (partial / LOSERS / name).write_bytes(row.loser)
        prompts[name] = row.prompt
    (partial / JSON_PROMPTS).write_text(json.dumps(prompts, indent=1, ensure_ascii=False), encoding="utf-8")
    partial.rename(path)


def _pair(line: str, folder: Path) -> tuple[str | None, str, str] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("winner", "loser")):
        return None
    prompt = row.get("prompt")
    return prompt if isinstance(prompt, str) else None, str(folder / row["winner"]), str(folder / row["loser"])


def _pictures(folder: Path) -> list[Path]:
    kinds = Image.registered_extensions()
    return [file for file in folder.iterdir() if file.suffix.lower() in kinds and not file.name.startswith(".")]


def _prompts(path: Path, names: list[str], winners: list[str]) -> dict[str, str]:
    """File name -> prompt, for those that have one."""
    if (path / JSON_PROMPTS).is_file():
        return _json_prompts(path / JSON_PROMPTS, names)
    if (path / TEXT_PROMPTS).is_file():
        lines = read_text(path / TEXT_PROMPTS).splitlines()
        if len(lines) != len(winners):
            fix = f"has {len(lines)} lines for {len(winners)} files in {WINNERS}/; set one for each, in their order"
            raise ConfigError(FIELD, str(path / TEXT_PROMPTS), fix)
        return dict(zip(winners, lines, strict=True))
    texts = {name: (path / WINNERS / name).with_suffix(".txt") for name in names}
    found = {name: read_text(text) for name, text in texts.items() if text.is_file()}
    if not found:
        fix = f"has no prompts; add {JSON_PROMPTS}, {TEXT_PROMPTS} or a .txt beside each file in {WINNERS}/"
        raise ConfigError(FIELD, str(path), fix)
    return found


def _json_prompts(path: Path, names: list[str]) -> dict[str, str]:
    try:
        prompts: Any = json.loads(read_text(path))
    except ValueError as error:
        raise ConfigError(FIELD, str(path), f'is no JSON ({error}); set {{"cat.png": "a cat"}}') from error
    if not isinstance(prompts, dict):
        raise ConfigError(FIELD, str(path), 'is no object; set {"cat.png": "a cat"}')
    found = {name: prompts.get(name, prompts.get(Path(name).stem)) for name in names}
    if not any(isinstance(prompt, str) for prompt in found.values()):
        raise ConfigError(FIELD, str(path), f"names no file of {WINNERS}/, such as {names[0]!r}")
    return {name: prompt for name, prompt in found.items() if isinstance(prompt, str)}


def read_text(path: Path, field: str = FIELD) -> str:
    """Raises ConfigError of setting `field` if it is no UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")  # a byte-order mark would else be part of the first prompt
    except UnicodeDecodeError as error:
        raise ConfigError(field, str(path), f"is no UTF-8 text ({error}); save it as UTF-8") from error


def _bytes(path: Path) -> bytes | None:
    # Not Path.is_file: it raises for a name that no file can have, which is a bad row and no more.
    return path.read_bytes() if os.path.isfile(path) else None


def _suffix(data: bytes) -> str:
    with Image.open(io.BytesIO(data)) as image:
        return (image.format or "png").lower()
