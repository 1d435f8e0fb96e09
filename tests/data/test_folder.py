from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rayalign.data.folder import index_folder, index_jsonl, write_folder
from rayalign.data.preferences import BAD_IMAGE, BAD_LINE, NO_CAPTION, NO_IMAGE, PreferenceRow, num_rows, read_rows
from rayalign.errors import ConfigError
from rayalign.records import TIE


@pytest.fixture
def pairs(tmp_path: Path, image: Callable[..., bytes]) -> Path:
    """winners/ and losers/ with a.png, b.png and c.png, and no prompts yet."""
    for side, colour in (("winners", (200, 30, 30)), ("losers", (30, 30, 200))):
        (tmp_path / side).mkdir()
        for name in "abc":
            (tmp_path / side / f"{name}.png").write_bytes(image(colour, format="PNG"))
    return tmp_path


def all_rows(index) -> list[PreferenceRow]:
    return read_rows(index, range(num_rows(index)))


def lines(path: Path, *rows: object) -> Path:
    path.write_text(
        "\n".join(row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows),
        encoding="utf-8",
    )
    return path


def test_a_line_is_a_pair_with_paths_from_its_file(pairs: Path, image: Callable) -> None:
    elsewhere = pairs / "losers" / "b.png"
    path = lines(
        pairs / "set.jsonl",
        {"prompt": "a cat", "winner": "winners/a.png", "loser": "losers/a.png", "more": 1},
        "",
        {"prompt": "two\u2028lines", "winner": "winners/b.png", "loser": str(elsewhere)},
    )
    red, blue = image((200, 30, 30), format="PNG"), image((30, 30, 200), format="PNG")
    found = all_rows(index_jsonl(path))
    assert found == [PreferenceRow("a cat", red, blue), PreferenceRow("two\u2028lines", red, blue)]


def test_bad_lines_are_broken_rows_for_their_reason(pairs: Path) -> None:
    good = {"prompt": "a cat", "winner": "winners/a.png", "loser": "losers/a.png"}
    (pairs / "cut.png").write_bytes((pairs / "winners" / "a.png").read_bytes()[:40])
    path = lines(
        pairs / "set.jsonl",
        good,
        "{not json",
        [1, 2],
        {"prompt": "no loser", "winner": "winners/a.png"},
        good | {"winner": 3},
        good | {"prompt": None},
        good | {"prompt": ["a cat"]},
        good | {"loser": "losers/none.png"},
        good | {"loser": ""},  # the folder itself
        good | {"loser": "\0"},
        good | {"loser": 400 * "x"},
        good | {"winner": "cut.png"},
    )
    expected = ["", *[BAD_LINE] * 4, *[NO_CAPTION] * 2, *[NO_IMAGE] * 4, BAD_IMAGE]
    assert [row.reason for row in all_rows(index_jsonl(path))] == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a prompt a line\n", "no line is a pair"), (b"", "no line is a pair"), (b"\xff\xfe{", "no UTF-8 text")],
)
def test_a_file_without_a_pair_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        index_jsonl(path)
    assert (caught.value.field, caught.value.value) == ("pairs.path", str(path))


def test_prompts_as_json_by_name_or_stem(pairs: Path) -> None:
    (pairs / "prompts.json").write_text(json.dumps({"a.png": "an ape", "b": "a bear"}))
    (pairs / "prompts.txt").write_text("not\nlooked\nat\n")
    found = all_rows(index_folder(pairs))
    assert [row.prompt for row in found] == ["an ape", "a bear", ""]
    assert found[2].reason == NO_CAPTION


def test_prompts_as_lines_in_the_order_of_names(pairs: Path, image: Callable) -> None:
    (pairs / "prompts.txt").write_text("an ape\na bear\na cow\n")
    found = all_rows(index_folder(pairs))
    red, blue = image((200, 30, 30), format="PNG"), image((30, 30, 200), format="PNG")
    assert found == [PreferenceRow(prompt, red, blue) for prompt in ("an ape", "a bear", "a cow")]
    (pairs / "prompts.txt").write_text("an ape\na bear\n")
    with pytest.raises(ConfigError, match="has 2 lines for 3 files in winners/"):
        index_folder(pairs)


def test_prompts_beside_the_winners(pairs: Path) -> None:
    for name, text in (("a", "an ape\n"), ("b", "a bear"), ("c", " ")):
        (pairs / "winners" / f"{name}.txt").write_text(text)
    assert [row.prompt for row in all_rows(index_folder(pairs))] == ["an ape", "a bear", ""]


def test_a_picture_without_partner_is_a_broken_row(pairs: Path) -> None:
    (pairs / "prompts.txt").write_text("an ape\na bear\n")
    (pairs / "winners" / "b.png").unlink()
    (pairs / "losers" / "c.png").unlink()
    (pairs / "losers" / ".d.png").write_bytes(b"left by a file manager")
    found = all_rows(index_folder(pairs))
    assert [row.reason for row in found] == ["", NO_CAPTION, NO_IMAGE]  # b has no winner, so no prompt
    assert [row.prompt for row in found] == ["an ape", "", "a bear"]


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (None, r"has no prompts; add prompts\.json, prompts\.txt or a \.txt beside"),
        ("{", "is no JSON"),
        ("[1]", "is no object"),
        ('{"x.png": "y"}', r"names no file of winners/, such as 'a\.png'"),
    ],
)
def test_a_folder_without_prompts_is_refused(pairs: Path, prompts: str | None, message: str) -> None:
    if prompts is not None:
        (pairs / "prompts.json").write_text(prompts)
    with pytest.raises(ConfigError, match=message) as caught:
        index_folder(pairs)
    assert caught.value.field == "pairs.path"


def test_a_long_set_counts_through_its_groups(pairs: Path) -> None:
    good = {"winner": "winners/a.png", "loser": "losers/a.png"}
    index = index_jsonl(lines(pairs / "set.jsonl", *[good | {"prompt": f"number {i}"} for i in range(230)]))
    assert tuple(index.group_rows) == (100, 100, 30)
    found = read_rows(index, [229, 0, 100, 99, 200])
    assert [row.prompt for row in found] == [f"number {i}" for i in (229, 0, 100, 99, 200)]


def test_a_stamp_is_of_one_state_of_the_set(pairs: Path) -> None:
    good = {"prompt": "a", "winner": "winners/a.png", "loser": "losers/a.png"}
    first = index_jsonl(lines(pairs / "set.jsonl", good))
    assert index_jsonl(pairs / "set.jsonl") == first
    assert index_jsonl(lines(pairs / "set.jsonl", good | {"prompt": "b"})).stamp != first.stamp
    (pairs / "prompts.txt").write_text("an ape\na bear\na cow\n")
    os.utime(pairs / "losers", (0, 0))  # long ago, whatever the tick of the file system's clock
    folder = index_folder(pairs)
    assert index_folder(pairs) == folder
    (pairs / "losers" / "new").write_bytes(b"another picture")
    (pairs / "losers" / "new").replace(pairs / "losers" / "a.png")
    assert index_folder(pairs).stamp != folder.stamp


def test_names_must_meet(pairs: Path) -> None:
    for name in "abc":
        (pairs / "losers" / f"{name}.png").rename(pairs / "losers" / f"{name}_base.png")
    with pytest.raises(ConfigError, match="3 files in winners/ and 3 in losers/, no name in both"):
        index_folder(pairs)


def test_what_is_written_is_read_as_it_was(tmp_path: Path, image: Callable) -> None:
    rows = [PreferenceRow(f"é {i}", image((i, 0, 0), format="PNG"), image((0, i, 0))) for i in range(12)]
    write_folder(tmp_path / "set", iter(rows))
    assert all_rows(index_folder(tmp_path / "set")) == rows
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_folder_has_no_place_for_ties(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="row 0 is tie"):
        write_folder(tmp_path / "set", [PreferenceRow("a", None, None, TIE)])
    assert not (tmp_path / "set").exists()
