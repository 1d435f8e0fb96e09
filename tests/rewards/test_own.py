"""A user's own scorer: found in the working folder, and sent where it must be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rayalign.errors import ConfigError
from rayalign.rewards.own import code_of, load_module

MODULE = "class Mine: ...\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working folder with a package and a file of a user's; nothing of it is on the path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    (tmp_path / "own_package" / "deeper").mkdir(parents=True)
    (tmp_path / "own_package" / "deeper" / "own_module.py").write_text(MODULE)
    (tmp_path / "own_file.py").write_text(MODULE)
    (tmp_path / "own_broken.py").write_text("import no_such_library\n")
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]


def test_the_working_folder_is_looked_in(folder: Path) -> None:
    assert load_module("own_package.deeper.own_module:Mine").Mine.__name__ == "Mine"
    assert load_module("own_file:Mine").Mine.__name__ == "Mine"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("own_packet.own_module:Mine", "no module own_packet in .* start from the folder that holds own_packet"),
        ("own_package.deeper.own_modul:Mine", "own_package.deeper has no module 'own_modul'"),
        ("own_broken:Mine", "failed with ModuleNotFoundError: No module named 'no_such_library'; correct it"),
    ],
)
def test_says_what_was_not_found(folder: Path, name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_module(name)


def test_a_package_travels_as_its_folder_and_a_file_alone(folder: Path) -> None:
    assert code_of("own_package.deeper.own_module:Mine") == folder / "own_package"
    assert code_of("own_file:Mine") == folder / "own_file.py"


@pytest.mark.parametrize("name", ["jpeg", "rayalign.rewards.stub:StubScorer", "yaml:Loader", "json:Mine"])
def test_what_nodes_have_does_not_travel(name: str) -> None:
    assert code_of(name) is None
