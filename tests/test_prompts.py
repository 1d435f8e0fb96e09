from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayalign.config import PromptsConfig
from rayalign.errors import ConfigError
from rayalign.prompts import load_prompts, read_prompts, ticket_prompts
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
        ("p.txt", "a cat\nein Löwe\n".encode("latin-1"), r"line 2 is no UTF-8 text, .* such as Latin-1"),
        ("p.txt", "a cat\n".encode("utf-16"), "it is UTF-16; save it as UTF-8"),
        ("p.txt", b"a cat\n\x89PNG\x00", r"line 2 is no UTF-8 text, the file seems to be binary"),
        ("p.txt", b"a cat\na\x00dog\n", r"line 2 holds '\\x00', which is no text"),
        ("p.txt", b"a cat\n" + b"a dog " * 200_000, r"line 2 has 1199999 characters, 'a dog .* at most 10000"),
        ("p.jsonl", b"{", "line 1 is no JSON"),
        ("p.jsonl", b'["a cat"]', "line 1 has no key 'prompt'"),
        ("p.jsonl", b'{"prompt": "a"}\n\n{"prompt": "\\ud800"}', r"line 3 holds '\\ud800', which is no text"),
        ("p.jsonl", b'{"prompt": 3}', "line 1 holds a int, not a text"),
        ("p.jsonl", b"[" * 100_000, "cannot be read"),
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


def test_a_folder_is_no_prompt_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder; set a file"):
        load(tmp_path)


def test_a_parquet_of_numbers_or_cut_short(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="row 1 holds a int, not a text"):
        load(write(tmp_path / "p.parquet", [1, 2]))
    whole = write(tmp_path / "p.parquet", list(THREE))
    whole.write_bytes(whole.read_bytes()[:-9])
    with pytest.raises(ConfigError, match="cannot be read"):
        load(whole)


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "p.txt", ["a cat", "", "a dog", "a cat ", "a cat", "  "])
    assert read_prompts(PromptsConfig(source=str(path))) == (["a cat", "a dog"], 2, 2)


def test_100_000_prompts_are_read_and_drawn_quickly(tmp_path: Path) -> None:
    many = [f"a picture of thing number {number}, in the style of {number % 7}" for number in range(100_000)]
    path = write(tmp_path / "p.txt", [*many, *many[:10]])
    start = time.process_time()
    found = read_prompts(PromptsConfig(source=str(path)))
    assert (found.prompts, found.num_duplicates) == (many, 10)
    drawn = [prompt for slot in range(256) for prompt in ticket_prompts(many, Ticket(256 + slot, 256), 4, seed=0)]
    assert len(set(drawn)) == 1024
    assert time.process_time() - start < 5  # 0.4 s; 256 shuffles of the whole set took 15


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
