"""Prompt sets of an evaluation, by name or file, with the category of each prompt where the set has one."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rayalign.config import PromptsConfig
from rayalign.errors import ConfigError
from rayalign.prompts import BUILT_IN, load_prompts

FIELD = "prompts.source"


@dataclass(frozen=True)
class HubSet:
    """A published set: repository, files (by category, or one for all), columns."""

    repository: str
    files: dict[str, str]  # category -> file; one entry "" where the file has a column for it
    column: str = "prompt"
    category: str | None = None


HUB_SETS = {
    "partiprompts": HubSet("nateraw/parti-prompts", {"": "PartiPrompts.tsv"}, "Prompt", "Category"),
    "hpdv2": HubSet(
        "zhwang/HPDv2",
        {style: f"benchmark/{style}.json" for style in ("anime", "concept-art", "paintings", "photo")},
    ),
    "pickapic-validation": HubSet(
        "yuvalkirstain/pickapic_v2_no_images", {"": "data/validation_unique-00000-of-00001.parquet"}, "caption"
    ),
}


@dataclass(frozen=True)
class PromptRow:
    prompt: str
    category: str  # "" where the set has none


def load_prompt_set(source: str, column: str | None = None, category: str | None = None) -> list[PromptRow]:
    """The distinct prompts of a set, in order.

    Args:
        source: a built-in set, one of `HUB_SETS`, or a file: .txt, .jsonl, .json (a list of texts, or of objects; an
            object of lists is categories of prompts), .tsv, .csv or .parquet.
        column: of the prompt in files with columns; null: prompt, Prompt, caption or text.
        category: column of the category; null: Category or category, where there is one.

    Raises ConfigError if it cannot be read, or holds nothing.
    """
    if source in BUILT_IN:
        return [PromptRow(prompt, "") for prompt in load_prompts(PromptsConfig(source=source))]
    try:
        rows = _hub(HUB_SETS[source]) if source in HUB_SETS else _read(Path(source).expanduser(), column, category)
    except (OSError, ValueError, KeyError, csv.Error) as error:
        known = ", ".join([*BUILT_IN, *HUB_SETS])
        raise ConfigError(FIELD, source, f"cannot be read ({error}); set a file, or one of {known}") from error
    distinct = {row.prompt: row for row in reversed(rows) if row.prompt}
    found = [row for row in rows if distinct.get(row.prompt) is row]
    if not found:
        raise ConfigError(FIELD, source, "holds no prompts")
    return found


def _hub(known: HubSet) -> list[PromptRow]:
    from huggingface_hub import hf_hub_download

    rows: list[PromptRow] = []
    for category, name in known.files.items():
        try:
            file = Path(hf_hub_download(known.repository, name, repo_type="dataset"))
        except Exception as error:  # the hub client raises many kinds
            raise OSError(f"{known.repository} is not to be had from the hub: {error}") from error
        rows += [PromptRow(row.prompt, category or row.category) for row in _read(file, known.column, known.category)]
    return rows


def _read(file: Path, column: str | None, category: str | None) -> list[PromptRow]:
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        raise ValueError(f"{file.suffix or 'no ending'} is no kind that is read")
    return [_row(entry, column, category) for entry in reader(file)]


def _row(entry: Any, column: str | None, category: str | None) -> PromptRow:
    if not isinstance(entry, dict):
        return PromptRow(str(entry).strip(), "")
    name = _column(entry, column, ("prompt", "Prompt", "caption", "text"))
    if name is None:
        raise ValueError(f"no column {column or 'of prompts'} among {', '.join(entry)}; set prompts.column")
    kind = _column(entry, category, ("category", "Category"))
    if category is not None and kind is None:
        raise ValueError(f"no column {category} among {', '.join(entry)}; set prompts.category")
    return PromptRow(str(entry[name] or "").strip(), str(entry[kind] or "").strip() if kind else "")


def _column(entry: dict[str, Any], asked: str | None, usual: tuple[str, ...]) -> str | None:
    names = (asked,) if asked is not None else usual
    return next((name for name in names if name in entry), None)


def _text(file: Path) -> list[Any]:
    return file.read_text(encoding="utf-8-sig").splitlines()


def _json_lines(file: Path) -> list[Any]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8-sig").split("\n") if line.strip()]


def _json(file: Path) -> list[Any]:
    found = json.loads(file.read_text(encoding="utf-8-sig"))
    if isinstance(found, dict):
        return [{"prompt": prompt, "category": name} for name, prompts in found.items() for prompt in prompts]
    return list(found)


def _table(delimiter: str, quoting: Literal[0, 3]) -> Callable[[Path], list[Any]]:
    def read(file: Path) -> list[Any]:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            return list(csv.DictReader(lines, delimiter=delimiter, quoting=quoting))

    return read


def _parquet(file: Path) -> list[Any]:
    import pyarrow.parquet as pq

    names = [name for name in pq.read_schema(file).names if "jpg" not in name and "image" not in name]
    return pq.read_table(file, columns=names).to_pylist()


READERS: dict[str, Callable[[Path], list[Any]]] = {
    ".txt": _text,
    ".jsonl": _json_lines,
    ".json": _json,
    ".tsv": _table("\t", csv.QUOTE_NONE),  # PartiPrompts has quotation marks that stand alone
    ".csv": _table(",", csv.QUOTE_MINIMAL),
    ".parquet": _parquet,
}
