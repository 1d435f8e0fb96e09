"""Prompt sets: built-in by name, or a text, JSONL or parquet file. And which prompts an iteration's ticket draws."""

from __future__ import annotations

import json
import random
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from rayalign.config import PromptsConfig
from rayalign.errors import ConfigError
from rayalign.records import Ticket, derive_seed

# The longest text encoder here reads 256 tokens; a line beyond this is another file, or one without its line breaks.
MAX_CHARS = 10_000
# The 45 bare nouns of DDPO, D3PO and TailorPO.
ANIMALS = """
    cat dog horse monkey rabbit zebra spider bird sheep deer cow goat lion tiger bear raccoon fox wolf lizard beetle
    ant butterfly fish shark whale dolphin squirrel mouse rat snake turtle frog chicken duck goose bee pig turkey fly
    llama camel bat gorilla hedgehog kangaroo
""".split()  # noqa: SIM905


def _shapes() -> list[str]:
    from rayalign.toy.shapes import train_prompts

    return train_prompts()


def _shapes_heldout() -> list[str]:
    from rayalign.toy.shapes import heldout_prompts

    return heldout_prompts()


BUILT_IN = {"animals": lambda: list(ANIMALS), "shapes": _shapes, "shapes-heldout": _shapes_heldout}


def load_prompts(config: PromptsConfig, field: str = "prompts.source") -> list[str]:
    """The distinct prompts of a set, in order. Raises ConfigError as `read_prompts` does."""
    return read_prompts(config, field).prompts


class PromptSet(NamedTuple):
    """`prompts` are distinct and stripped; what was left out is counted."""

    prompts: list[str]
    num_duplicates: int
    num_empty: int


def read_prompts(config: PromptsConfig, field: str = "prompts.source") -> PromptSet:
    """A set and what was left out of it.

    Raises ConfigError naming `field` if it cannot be read, holds no prompt, or something that is none: another
    encoding, binary data, a line longer than MAX_CHARS.
    """
    source = config.source if field == "prompts.source" else (config.heldout or config.source)
    if source in BUILT_IN:
        return PromptSet(BUILT_IN[source](), 0, 0)
    path = Path(source).expanduser()
    try:
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "no such file"
            raise ConfigError(field, source, f"{what}; set a file or one of the built-in sets {sorted(BUILT_IN)}")
        given = [(number, prompt.strip()) for number, prompt in _read(path, config.column)]
    except (OSError, ValueError, KeyError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error  # without the name again
        fix = f"cannot be read ({why}); set a UTF-8 .txt (a prompt a line), .jsonl or .parquet file"
        raise ConfigError(field, source, fix) from error
    full = [(number, prompt) for number, prompt in given if prompt]
    distinct = list(dict.fromkeys(prompt for _, prompt in full))
    if not distinct:
        raise ConfigError(field, source, "holds no prompts; put one on each line")
    for number, prompt in full:
        if problem := _problem(prompt):
            where = "row" if path.suffix == ".parquet" else "line"
            raise ConfigError(field, source, f"{where} {number} {problem}; change it or leave it out")
    return PromptSet(distinct, len(full) - len(distinct), len(given) - len(full))


def _problem(prompt: str) -> str:
    """Why a text is no prompt; empty if it is one."""
    if len(prompt) > MAX_CHARS:
        return f"has {len(prompt)} characters, {prompt[:40]!r} the first, and a prompt at most {MAX_CHARS}"
    if not prompt.isprintable():
        # U+2028 and its like may stand in a caption; what no keyboard writes may not, nor half a surrogate pair.
        bad = [letter for letter in prompt if unicodedata.category(letter) in ("Cc", "Cs") and letter not in "\t\n\r"]
        if bad:
            return f"holds {bad[0]!a}, which is no text"
    return ""


def _read(path: Path, column: str) -> list[tuple[int, str]]:
    """(number of the line or row, counted from one; text), None and nothing else left out."""
    if path.suffix == ".parquet":
        return _read_parquet(path, column)
    if path.suffix not in ("", ".txt", ".jsonl"):
        raise ValueError(f"{path.suffix} is no kind that is read")  # as text, a .csv's header would be a prompt
    text = _decoded(path.read_bytes())
    if path.suffix != ".jsonl":
        return list(enumerate(text.splitlines(), 1))
    found = []
    # Not splitlines: JSON allows U+2028 and its like inside a string.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number} is no JSON: {error}") from error
        if not isinstance(row, dict) or column not in row:
            raise ValueError(f"line {number} has no key {column!r}; set prompts.column")
        if row[column] is not None:
            found.append((number, _text(row[column], f"line {number}")))
    return found


def _read_parquet(path: Path, column: str) -> list[tuple[int, str]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        names = file.schema_arrow.names
        if column not in names:
            raise ValueError(f"no column {column!r} among {names}; set prompts.column")
        values = file.read(columns=[column])[column].to_pylist()
    return [(n, _text(value, f"row {n}")) for n, value in enumerate(values, 1) if value is not None]


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where} holds a {type(value).__name__}, not a text; set prompts.column to another")
    return value


def _decoded(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("it is UTF-16; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")  # a byte-order mark would else stand before the first prompt
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = "binary" if b"\0" in data else "saved in another encoding, such as Latin-1"
        raise ValueError(f"line {line} is no UTF-8 text, the file seems to be {what}") from error


def ticket_prompts(prompts: list[str], ticket: Ticket, count: int, seed: int) -> list[str]:
    """The prompts of one ticket: a pure function of (seed, iteration, slot).

    An iteration walks through a shuffled copy of the set, so that prompts repeat as evenly as they can.
    """
    first = (ticket.number % ticket.tickets_per_iteration) * count
    chosen: list[str] = []
    for position in range(first, first + count):
        lap, place = divmod(position, len(prompts))
        chosen.append(prompts[_order(len(prompts), seed, ticket.iteration, lap)[place]])
    return chosen


@lru_cache(maxsize=4)  # an iteration's tickets share it: of 100,000 prompts it takes 50 ms
def _order(count: int, seed: int, iteration: int, lap: int) -> list[int]:
    order = list(range(count))
    random.Random(derive_seed(seed, "prompts", iteration, lap)).shuffle(order)
    return order
