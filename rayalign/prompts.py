"""Prompt sets: built-in by name, or a text, JSONL or parquet file. And which prompts an iteration's ticket draws."""

from __future__ import annotations

import json
import random
from pathlib import Path

from rayalign.config import PromptsConfig
from rayalign.errors import ConfigError
from rayalign.records import Ticket, derive_seed

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
    """The distinct prompts of a set, in order. Raises ConfigError naming `field` if it cannot be read or is empty."""
    source = config.source if field == "prompts.source" else (config.heldout or config.source)
    if source in BUILT_IN:
        return BUILT_IN[source]()
    path = Path(source).expanduser()
    if not path.is_file():
        raise ConfigError(field, source, f"no such file; set a file or one of the built-in sets {sorted(BUILT_IN)}")
    try:
        prompts = _read(path, config.column)
    except (OSError, ValueError, KeyError) as error:
        fix = f"cannot be read ({error}); set a UTF-8 .txt (a prompt a line), .jsonl or .parquet file"
        raise ConfigError(field, source, fix) from error
    distinct = list(dict.fromkeys(prompt.strip() for prompt in prompts if prompt and prompt.strip()))
    if not distinct:
        raise ConfigError(field, source, "holds no prompts; put one on each line")
    return distinct


def _read(path: Path, column: str) -> list[str]:
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        table = pq.read_table(path)
        if column not in table.column_names:
            raise ValueError(f"no column {column!r} among {table.column_names}; set prompts.column")
        return [str(value) for value in table[column].to_pylist() if value is not None]
    if path.suffix not in ("", ".txt", ".jsonl"):
        raise ValueError(f"{path.suffix} is no kind that is read")  # as text, a .csv's header would be a prompt
    text = path.read_text(encoding="utf-8-sig")  # a byte-order mark would else stand before the first prompt
    if path.suffix == ".jsonl":
        # Not splitlines: JSON allows U+2028 and its like inside a string.
        rows = [json.loads(line) for line in text.split("\n") if line.strip()]
        if any(not isinstance(row, dict) or column not in row for row in rows):
            raise ValueError(f"a line has no key {column!r}; set prompts.column")
        return [str(row[column]) for row in rows if row[column] is not None]
    return text.splitlines()


def ticket_prompts(prompts: list[str], ticket: Ticket, count: int, seed: int) -> list[str]:
    """The prompts of one ticket: a pure function of (seed, iteration, slot).

    An iteration walks through a shuffled copy of the set, so that prompts repeat as evenly as they can.
    """
    first = (ticket.number % ticket.tickets_per_iteration) * count
    chosen: list[str] = []
    orders: dict[int, list[int]] = {}
    for position in range(first, first + count):
        lap, place = divmod(position, len(prompts))
        if lap not in orders:
            orders[lap] = list(range(len(prompts)))
            random.Random(derive_seed(seed, "prompts", ticket.iteration, lap)).shuffle(orders[lap])
        chosen.append(prompts[orders[lap][place]])
    return chosen
