from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rayalign.errors import ConfigError
from rayalign.evaluation import prompt_sets
from rayalign.evaluation.prompt_sets import HUB_SETS, PromptRow, load_prompt_set
from rayalign.prompts import ANIMALS

ROWS = [PromptRow("a cat", "animals"), PromptRow('a "big" house', "places")]
PARTI = Path(__file__).parents[3] / "shared" / "data" / "PartiPrompts.tsv"


def write(folder: Path, name: str) -> Path:
    file = folder / name
    plain = [{"prompt": row.prompt, "category": row.category} for row in ROWS]
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist([{**row, "image": b"\x00"} for row in plain]), file)
        return file
    text = {
        ".jsonl": "\n".join(map(json.dumps, plain)) + "\n",
        ".json": json.dumps({row.category: [row.prompt] for row in ROWS}),
        ".tsv": 'Prompt\tCategory\na cat\tanimals\na "big" house\tplaces\n',
        ".csv": 'prompt,category\na cat,animals\n"a ""big"" house",places\n',
    }
    file.write_text(text[file.suffix])
    return file


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.tsv", "a.csv", "a.parquet"])
def test_prompts_with_their_categories(name: str, tmp_path: Path) -> None:
    assert load_prompt_set(str(write(tmp_path, name))) == ROWS


def test_sets_without_categories(tmp_path: Path) -> None:
    assert load_prompt_set("animals") == [PromptRow(name, "") for name in ANIMALS]
    (tmp_path / "a.txt").write_text("a cat\n\na dog\na cat\n")
    assert load_prompt_set(str(tmp_path / "a.txt")) == [PromptRow("a cat", ""), PromptRow("a dog", "")]
    (tmp_path / "a.json").write_text('["a cat", "a dog"]')
    assert [row.prompt for row in load_prompt_set(str(tmp_path / "a.json"))] == ["a cat", "a dog"]


def test_columns_of_other_names(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"words": "a cat", "kind": "pet"}\n')
    assert load_prompt_set(str(tmp_path / "a.jsonl"), "words", "kind") == [PromptRow("a cat", "pet")]
    with pytest.raises(ConfigError, match=r"no column of prompts among words, kind; set prompts\.column"):
        load_prompt_set(str(tmp_path / "a.jsonl"))
    with pytest.raises(ConfigError, match=r"no column sort among words, kind; set prompts\.category"):
        load_prompt_set(str(tmp_path / "a.jsonl"), "words", "sort")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.txt", "", "holds no prompts"),
        ("a.json", "{", "cannot be read"),
        ("a.pickle", "x", "no kind that is read"),
        ("b.txt", None, "cannot be read"),
    ],
)
def test_what_cannot_be_read_is_refused(name: str, text: str | None, said: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_prompt_set(str(tmp_path / name))


def test_a_set_of_the_hub_is_several_files_by_category(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(repository: str, name: str, repo_type: str) -> str:
        asked.append((repository, name, repo_type))
        file = tmp_path / Path(name).name
        file.write_text(json.dumps([f"a picture, {file.stem}"]))
        return str(file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    found = load_prompt_set("hpdv2")
    assert [row.category for row in found] == ["anime", "concept-art", "paintings", "photo"]
    assert found[0].prompt == "a picture, anime"
    assert asked[0] == ("zhwang/HPDv2", "benchmark/anime.json", "dataset")


@pytest.mark.skipif(not PARTI.exists(), reason="the published file is not here")
def test_partiprompts_as_published() -> None:
    known = HUB_SETS["partiprompts"]
    found = prompt_sets._read(PARTI, known.column, known.category)
    assert len(found) == 1632
    assert len({row.category for row in found}) == 12
    assert all(row.prompt and row.category for row in found)
