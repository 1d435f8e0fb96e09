"""Folders of pictures: which files, in which order, with which prompts, and what is refused in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rayalign.config.score import ScoreConfig
from rayalign.data.picture import PictureSet
from rayalign.data.pictures import open_pictures
from rayalign.errors import ConfigError


def opened(folder: Path, **settings: object) -> PictureSet:
    tree = {"images": str(folder), "scorers": [{"scorer": "jpeg"}], **settings}
    return open_pictures(ScoreConfig.model_validate(tree))


def read(pictures: PictureSet) -> list[tuple[str, str | None, bytes | None, str]]:
    return [tuple(picture) for part in pictures.parts for picture in pictures.reader(part)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """a.png, deep/b.JPG, and files that are no images. What is in them is for later to find out."""
    (tmp_path / "deep" / ".hidden").mkdir(parents=True)
    for name in ("deep/b.JPG", "a.png", ".c.png", "deep/.hidden/d.png", "notes.md"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def test_images_in_the_order_of_their_names_with_the_prompts_beside_them(folder: Path) -> None:
    (folder / "a.txt").write_text("a cat\n", encoding="utf-8")
    (folder / "deep" / "b.caption").write_text("\ufeffein Hündchen", encoding="utf-8")
    pictures = opened(folder)
    assert read(pictures) == [("a.png", "a cat", b"a.png", ""), ("deep/b.JPG", "ein Hündchen", b"deep/b.JPG", "")]
    assert pictures.prompts_from == "a file beside each"


def test_metadata_counts_from_where_it_lies_and_comes_before_files_beside(folder: Path) -> None:
    (folder / "a.txt").write_text("from the file")
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a cat"}\n{"file_name": "gone.png"}\n')
    (folder / "deep" / "metadata.jsonl").write_text('{"file_name": "./b.JPG", "text": "no", "prompt": "a dog"}')
    pictures = opened(folder)
    assert read(pictures) == [
        ("a.png", "a cat", b"a.png", ""),
        ("deep/b.JPG", "a dog", b"deep/b.JPG", ""),
        ("gone.png", None, None, "the file is not there"),
    ]
    assert pictures.prompts_from == "metadata.jsonl"
    assert [prompt for _, prompt, _, _ in read(opened(folder, prompt_column="text"))] == ["a cat", "no", None]


def test_one_prompt_for_all(folder: Path) -> None:
    (folder / "a.txt").write_text("from the file")
    assert {prompt for _, prompt, _, _ in read(opened(folder, prompt="a cat"))} == {"a cat"}


def test_parts_are_of_the_length_asked_for(folder: Path) -> None:
    for number in range(3):
        (folder / f"x{number}.png").touch()
    pictures = opened(folder, rows_per_file=2)
    assert pictures.part_rows == [2, 2, 1]
    assert [part.num_rows for part in pictures.parts] == [2, 2, 1]


def test_a_file_that_is_written_anew_is_another_source(folder: Path) -> None:
    before = opened(folder).sources
    assert before == opened(folder).sources
    (folder / "a.png").write_bytes(b"another picture")
    assert [a.name for a, b in zip(before, opened(folder).sources, strict=True) if a != b] == ["a.png"]
    (folder / "deep" / "b.txt").write_text("now with a prompt")
    assert opened(folder).sources[1] != before[1]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", r"metadata.jsonl, line 2'.*is no JSON"),
        (json.dumps({"text": "a cat"}), "names no file"),
        (json.dumps({"file_name": "../a.png"}), "lies outside of"),
    ],
)
def test_metadata_that_is_none_is_refused(folder: Path, line: str, said: str) -> None:
    (folder / "metadata.jsonl").write_text(f'{{"file_name": "a.png"}}\n{line}\n')
    with pytest.raises(ConfigError, match=said):
        opened(folder)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"images": "nowhere"}, "does not exist; set a folder of images, or parquet"),
        ({"images": "notes.md"}, "is no folder and no parquet file"),
        ({"images": "deep/.hidden/empty"}, "none of its files is an image"),
        ({"image_column": "jpg"}, "is of parquet, and .* is a folder of images"),
        ({"prompt_column": "colour"}, "no line of .*metadata.jsonl has it; set one of caption, text"),
    ],
)
def test_what_cannot_be_used_is_refused(
    folder: Path, settings: dict, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "deep" / ".hidden" / "empty").mkdir()
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a", "caption": "b"}\n')
    with pytest.raises(ConfigError, match=said):
        opened(folder, **settings)
