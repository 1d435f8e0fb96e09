from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from rayalign.commands.main import main
from rayalign.commands.scorers import listing
from rayalign.rewards import environments, sources
from rayalign.rewards.table import SCORERS
from rayalign.rewards.weights import Weights, downloaded_path


@pytest.fixture(autouse=True)
def no_weights_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Caches of this test's own, empty at first."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("RAYALIGN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "hub"


def fetch(hub: Path, weights: Weights) -> None:
    """Lays out the files of a source as its download would."""
    if weights.source.startswith("https:"):
        downloaded_path(weights.source).parent.mkdir(parents=True)
        downloaded_path(weights.source).touch()
        return
    folder = hub / f"models--{weights.source.replace('/', '--')}"
    (folder / "snapshots" / "abc").mkdir(parents=True, exist_ok=True)
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text("abc")
    for names in weights.files:
        (folder / "snapshots" / "abc" / names.partition("|")[0]).touch()


def rows() -> dict[str, str]:
    """Each scorer's text in the listing, its lines joined."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in listing().splitlines()[2:]:
        first = line.split(" ")[0]
        name = first or name
        found.setdefault(name, []).append(line)
    return {name: " ".join(" ".join(lines).split()) for name, lines in found.items()}


def test_all_are_listed_with_their_facts() -> None:
    assert list(rows()) == list(SCORERS)
    header = listing().splitlines()[0].split()
    assert header == ["name", "unit", "and", "range", "prompt", "tokens", "gradient", "licence", "weights"]
    assert rows()["jpeg"].startswith("jpeg minus kB (1000 bytes) as JPEG no - no no weights nothing to fetch")
    for name in ("pickscore", "imagereward"):
        assert f"needed {SCORERS[name].num_tokens} yes" in rows()[name]
    assert "needed" not in rows()["aesthetic"]


def test_lines_fit_a_wide_terminal() -> None:
    assert max(map(len, listing().splitlines())) <= 130


def test_weights_are_looked_for_on_this_machine(no_weights_here: Path) -> None:
    assert "missing: xswu/HPSv2" in rows()["hpsv2"]
    fetch(no_weights_here, sources.HPS_V2)
    assert "present" in rows()["hpsv2"]
    assert "missing: xswu/HPSv2" in rows()["hpsv2.1"]  # another file of the same repository
    assert "sac+logos+ava1-l14-linearMSE.pth" in rows()["aesthetic"]
    fetch(no_weights_here, sources.AESTHETIC_HEAD)
    assert "sac+logos" not in rows()["aesthetic"]
    assert "openai/clip-vit-large-patch14" in rows()["aesthetic"]
    fetch(no_weights_here, sources.AESTHETIC_MODEL)
    assert "present" in rows()["aesthetic"]


def test_an_environment_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no environment yet (rayalign scorers install imagereward)" in rows()["imagereward"]
    monkeypatch.setattr(environments, "is_installed", lambda name: name == "imagereward")
    assert "environment" not in rows()["imagereward"]


def test_the_command_prints_the_listing(capsys: pytest.CaptureFixture) -> None:
    assert main(["scorers"]) == 0
    assert capsys.readouterr().out == listing() + "\n"


def test_install_makes_the_environment_and_prints_where(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(environments, "install", lambda name: Path("/cache") / name)
    assert main(["scorers", "install", "imagereward"]) == 0
    assert capsys.readouterr().out == "/cache/imagereward\n"


def test_nothing_to_install_is_a_setting_error(capsys: pytest.CaptureFixture) -> None:
    assert main(["scorers", "install", "jpeg"]) == 2
    assert "those that have one: imagereward" in capsys.readouterr().err


def test_check_passes_a_scorer_that_can_be_used(capsys: pytest.CaptureFixture) -> None:
    assert main(["scorers", "check", "rayalign.rewards.stub:StubScorer", "--option", "rule=red"]) == 0
    assert "can be used: --reward rayalign.rewards.stub:StubScorer" in capsys.readouterr().out


def test_check_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    source = "from rayalign.rewards.stub import StubScorer\nclass Short(StubScorer):\n"
    source += "    def score(self, *given):\n        return super().score(*given)[1:]\n"
    (tmp_path / "checked_module.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    assert main(["scorers", "check", "checked_module:Short"]) == 1
    said = capsys.readouterr().out
    assert "1. score gave shape (4,) for 5 images of 72 x 56; give a float32 numpy array of shape (5,)" in said


@pytest.mark.parametrize("option", ["rule", "=red"])
def test_check_refuses_an_option_without_a_name_or_value(option: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["scorers", "check", "stub", "--option", option]) == 2
    assert "--option" in capsys.readouterr().err
