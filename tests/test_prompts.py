from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayalign.config import PromptsConfig
from rayalign.errors import ConfigError
from rayalign.prompts import load_prompts, ticket_prompts
from rayalign.records import Ticket

THREE = ["a cat", "a dog", "ein Löwe"]


def load(path: Path, **changes: str) -> list[str]:
    return load_prompts(PromptsConfig(source=str(path), **changes))


def write(path: Path, prompts: list[object], column: str = "prompt") -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.table({column: pa.array(prompts)}), path)
    elif path.suffix == ".jsonl":
        lines = [json.dumps({"id": 7, column: prompt}, ensure_ascii=False) for prompt in prompts]
        path.write_text("\n".join(lines), encoding="utf-8")
    else:
        path.write_text("\n".join(map(str, prompts)), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["txt", "jsonl", "parquet"])
def test_reads_distinct_prompts_in_order(tmp_path: Path, kind: str) -> None:
    assert load(write(tmp_path / f"p.{kind}", [*THREE[:2], "", "  a cat ", THREE[2]])) == THREE


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_another_column_and_missing_values(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"p.{kind}", ["a cat", None, "a dog"], column="caption")
    assert load(path, column="caption") == ["a cat", "a dog"]
    with pytest.raises(ConfigError, match=r"'prompt'.*set prompts.column") as caught:
        load(path)
    assert caught.value.field == "prompts.source"


def test_windows_text_and_line_separators_inside_json(tmp_path: Path) -> None:
    text = tmp_path / "p.txt"
    text.write_bytes("\ufeffa cat\r\na dog\r\n".encode())
    assert load(text) == ["a cat", "a dog"]
    assert load(write(tmp_path / "p.jsonl", ["one\u2028prompt", "a dog"])) == ["one\u2028prompt", "a dog"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.txt", None, r"no such file; set a file or one of the built-in sets"),
        ("p.txt", b"", "holds no prompts; put one on each line"),
        ("p.txt", b" \n\n", "holds no prompts"),
        ("p.txt", bytes(range(256)), r"cannot be read .*; set a UTF-8 \.txt"),
        ("p.jsonl", b"{", "cannot be read"),
        ("p.jsonl", b'["a cat"]', "a line has no key 'prompt'"),
        ("p.parquet", b"not parquet at all", "cannot be read"),
        ("p.parquet", b"", "cannot be read"),
        ("p.csv", b"prompt\na cat\n", r"\.csv is no kind that is read"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        load(path)
    assert (caught.value.field, caught.value.value) == ("prompts.source", str(path))


def test_held_out_prompts_have_their_own_field(tmp_path: Path) -> None:
    config = PromptsConfig(source="animals", heldout=str(tmp_path / "none.txt"))
    assert len(load_prompts(config)) == 45
    with pytest.raises(ConfigError, match="no such file") as caught:
        load_prompts(config, "prompts.heldout")
    assert caught.value.field == "prompts.heldout"
    assert load_prompts(PromptsConfig(source="animals"), "prompts.heldout") == load_prompts(config)


def test_built_in_sets_are_copies() -> None:
    first = load_prompts(PromptsConfig(source="animals"))
    assert len(set(first)) == 45  # of the papers
    first.clear()
    assert len(load_prompts(PromptsConfig(source="animals"))) == 45


def test_a_tickets_prompts_are_a_function_of_seed_iteration_and_slot() -> None:
    prompts = [f"prompt {number}" for number in range(10)]
    ticket = Ticket(number=13, tickets_per_iteration=5)  # iteration 2, slot 3
    drawn = ticket_prompts(prompts, ticket, 4, seed=0)
    assert ticket_prompts(prompts, ticket, 4, seed=0) == drawn
    assert prompts == [f"prompt {number}" for number in range(10)]
    assert ticket_prompts(prompts, ticket, 4, seed=1) != drawn
    assert ticket_prompts(prompts, Ticket(18, 5), 4, seed=0) != drawn  # slot 3 of the next iteration


@pytest.mark.parametrize("count", [1, 3, 4, 25])
def test_an_iteration_covers_the_set_evenly(count: int) -> None:
    prompts = [f"prompt {number}" for number in range(10)]
    tickets = [Ticket(number, 5) for number in range(5, 10)]
    drawn = Counter(prompt for ticket in tickets for prompt in ticket_prompts(prompts, ticket, count, seed=3))
    times = [drawn[prompt] for prompt in prompts]
    assert sum(times) == 5 * count
    assert max(times) - min(times) <= 1
