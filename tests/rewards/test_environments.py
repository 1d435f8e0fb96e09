"""The environments are real (venv, pip, a package); only the package is tiny: a wheel written here, so no network."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import pytest

from rayalign.errors import ConfigError, RayalignError
from rayalign.rewards import environments
from rayalign.rewards.environments import (
    ENVIRONMENTS,
    Recipe,
    folder_of,
    install,
    is_installed,
    python_of,
    runtime_env_of,
    variable_of,
)


def write_wheel(folder: Path, name: str, number: str) -> Path:
    """A package `name` whose `NUMBER` is its version. It says that it needs a package that does not exist."""
    wheel = folder / f"{name}-{number}-py3-none-any.whl"
    info = f"{name}-{number}.dist-info"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr(f"{name}.py", f"NUMBER = {number!r}\n")
        file.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {number}\nRequires-Dist: no-such-package-of-anybody\n",
        )
        file.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RAYALIGN_CACHE", str(tmp_path / "with space"))
    return tmp_path / "with space"


def recipe(wheel: Path | str, check: str = "import tiny_clash") -> Recipe:
    return Recipe((str(wheel),), check, "nothing")


def offer(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes pip look for packages beside this wheel and nowhere else."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))


@pytest.fixture
def tiny(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe `tiny` whose package hides one of the main environment: pydantic, version 0.0.1."""
    wheel = write_wheel(tmp_path, "pydantic", "0.0.1")
    monkeypatch.setitem(ENVIRONMENTS, "tiny", recipe(wheel, "import pydantic; assert pydantic.NUMBER == '0.0.1'"))
    return cache


def run(python: Path, code: str) -> str:
    return subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_hides_what_clashes_and_shares_the_rest(tiny: Path) -> None:
    before = version("pydantic")
    said: list[str] = []
    folder = install("tiny", said.append)
    python = python_of("tiny", said.append)
    assert python == folder / "bin" / "python"
    assert run(python, "import pydantic; print(pydantic.NUMBER)") == "0.0.1"
    shared = "import sys, importlib.metadata as m; print(sys.version); print(m.version('ray'), m.version('torch'))"
    assert run(python, shared) == f"{sys.version}\n{version('ray')} {version('torch')}"
    assert run(python, "import torch; print(torch.__file__)") == run(
        Path(sys.executable), "import torch; print(torch.__file__)"
    )
    assert run(python, "import rayalign; print(rayalign.__version__)") == version("rayalign")
    assert run(Path(sys.executable), "import importlib.metadata as m; print(m.version('pydantic'))") == before
    # Said once, at the first of three calls: what, where, and how long.
    assert len(said) == 2
    assert "pydantic-0.0.1" in said[0]
    assert str(folder) in said[0]
    seconds = json.loads((folder / "installed.json").read_text())["seconds"]
    assert f"ready after {seconds:.0f} s" in said[1]
    # Only the torch of the main environment: no second one was installed.
    assert not list(folder.glob("lib/**/torch"))
    (env,) = runtime_env_of("tiny").items()
    assert env == ("py_executable", f"'{python}'")  # quoted: the folder's name has a space, and a shell runs it


def test_a_killed_install_does_not_count_and_whoever_waited_makes_it_anew(
    tiny: Path,
) -> None:
    wheel = ENVIRONMENTS["tiny"].requirements[0]
    begun = tiny / "begun"
    said: list[str] = []
    endless = recipe(wheel, f"open({str(begun)!r}, 'w'); import time; time.sleep(60)")
    code = (
        "from rayalign.rewards.environments import ENVIRONMENTS, Recipe, install\n"
        f"ENVIRONMENTS['tiny'] = {endless!r}\n"
        "install('tiny')"
    )
    with (
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL) as first,
        ThreadPoolExecutor() as pool,
    ):
        wait_for(begun.exists)  # its last step: every package is there
        assert list(folder_of("tiny").glob("lib/**/pydantic.py"))
        (folder_of("tiny") / "left over").touch()
        second = pool.submit(install, "tiny", said.append)
        wait_for(lambda: said)
        assert "another process installs" in said[0]
        assert not is_installed("tiny")
        first.kill()
        folder = second.result(timeout=60)
    assert is_installed("tiny")
    assert not (folder / "left over").exists()


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_folder_is_named_by_what_it_was_made_from(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENTS, "tiny", recipe("a==1"))
    first = folder_of("tiny")
    assert first.parent == cache / "environments"
    assert folder_of("tiny") == first
    monkeypatch.setitem(ENVIRONMENTS, "tiny", recipe("a==2"))
    second = folder_of("tiny")
    monkeypatch.setattr(environments, "version", lambda package: {"ray": "0.1"}.get(package, version(package)))
    third = folder_of("tiny")
    assert len({first, second, third}) == 3


def test_only_what_has_a_recipe_is_installed(cache: Path) -> None:
    with pytest.raises(ConfigError, match="'clip': has no environment to install; those that have one: imagereward"):
        install("clip")
    assert not cache.exists()


@pytest.mark.parametrize(
    ("requirement", "check", "hint"),
    [
        ("tiny_clash==0.0.2", "", r"is the package index reachable\?(.|\n)*tiny_clash==0.0.2"),
        (
            "tiny_clash==0.0.1",
            "import no_such_module",
            r"do not go with Python 3(.|\n)*No module named 'no_such_module'",
        ),
    ],
)
def test_a_failed_install_says_what_to_do(
    requirement: str, check: str, hint: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(write_wheel(tmp_path, "tiny_clash", "0.0.1"), monkeypatch)
    monkeypatch.setitem(ENVIRONMENTS, "tiny", recipe(requirement, check))
    with pytest.raises(RayalignError, match=rf"{hint}(.|\n)*install tiny(.|\n)*RAYALIGN_ENV_TINY=/path"):
        install("tiny", lambda _: None)
    assert not is_installed("tiny")


def test_another_version_first_on_the_path_is_noticed(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(write_wheel(tmp_path, "tiny_clash", "0.0.1"), monkeypatch)
    monkeypatch.setitem(ENVIRONMENTS, "tiny", recipe("tiny_clash==0.0.1"))
    monkeypatch.setenv("PYTHONPATH", str(write_wheel(tmp_path, "tiny_clash", "7")))  # a wheel is a folder to Python
    with pytest.raises(RayalignError, match=r"PYTHONPATH(.|\n)*tiny_clash 7 is found before 0.0.1"):
        install("tiny", lambda _: None)
    assert not is_installed("tiny")


def test_the_main_environment_needs_no_pip_and_its_constraints_do_not_count(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(write_wheel(tmp_path, "tiny_clash", "0.0.1"), monkeypatch)
    (tmp_path / "constraints.txt").write_text("tiny_clash==7\n")
    monkeypatch.setenv("PIP_CONSTRAINT", str(tmp_path / "constraints.txt"))
    monkeypatch.setattr(environments, "_has_pip", lambda: False)
    monkeypatch.setitem(ENVIRONMENTS, "tiny", recipe("tiny_clash==0.0.1"))
    assert run(python_of("tiny", lambda _: None), "import tiny_clash; print(tiny_clash.NUMBER)") == "0.0.1"


def test_a_cache_that_cannot_be_written_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENTS, "tiny", recipe("tiny_clash==0.0.1"))
    cache.touch()  # a file where the folder should be
    with pytest.raises(RayalignError, match="set RAYALIGN_CACHE to a folder with room"):
        install("tiny", lambda _: None)


def test_nothing_to_install_for_a_scorer_beside_the_others(cache: Path) -> None:
    assert runtime_env_of("clip") == {}
    assert not cache.exists()


def test_the_users_own_environment(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert variable_of("my.module:Scorer-2") == "RAYALIGN_ENV_MY_MODULE_SCORER_2"
    assert runtime_env_of("imagereward", "image:here/mine:1") == {"image_uri": "here/mine:1"}
    assert runtime_env_of("imagereward", sys.executable) == {"py_executable": sys.executable}
    monkeypatch.setenv("RAYALIGN_ENV_IMAGEREWARD", sys.prefix)  # a folder
    assert runtime_env_of("imagereward") == {"py_executable": str(Path(sys.prefix) / "bin" / "python")}
    assert runtime_env_of("imagereward", "image:b") == {"image_uri": "b"}  # the option comes first
    assert not cache.exists()  # none of these installs anything


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (None, "no Python could be started there"),
        ("echo hello", "no Python could be started there"),
        ("echo '[[3, 2], \"1.0\", true]'", "has Python 3.2 and Ray 1.0; a replica needs those that run here: Python 3"),
        ("echo '[[PYTHON], null, true]'", "Ray missing"),
        ("echo '[[PYTHON], \"RAY\", false]'", "does not find rayalign"),
    ],
)
def test_an_environment_that_cannot_serve_is_refused(script: str | None, message: str, tmp_path: Path) -> None:
    """An interpreter is whatever answers as one: a script stands for one with other versions."""
    python = tmp_path / "python"
    if script:
        ours = script.replace("PYTHON", f"{sys.version_info[0]}, {sys.version_info[1]}").replace("RAY", version("ray"))
        python.write_text(f"#!/bin/sh\n{ours}\n")
        python.chmod(0o755)
    with pytest.raises(ConfigError, match=message) as caught:
        runtime_env_of("imagereward", str(python))
    assert caught.value.field == "environment of imagereward"
