"""`rayalign score`: the command line becomes settings, and what is wrong with them is said before Ray starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rayalign.commands.main import main
from rayalign.config.score import ScoreConfig
from rayalign.pipeline import score_pictures


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[ScoreConfig]:
    """What a scoring was started with; nothing is scored."""
    seen: list[ScoreConfig] = []
    monkeypatch.setattr(score_pictures, "score_images", seen.append)
    return seen


def test_options_become_settings(started: list[ScoreConfig], tmp_path: Path) -> None:
    (tmp_path / "score.yaml").write_text("batch: 4\npool: {max: 3, cpus: 0.5}\noutput: elsewhere\n")
    given = ["pictures", "--scorer", "hpsv2.1", "--scorer", "my_package.my_module:Mine", "--output", "there"]
    given += ["--option", "hpsv2.1.weights=a.pt", "--option", "my_package.my_module:Mine.strength=0.5"]
    given += ["--config", str(tmp_path / "score.yaml"), "--pool.cpus", "0.25", "--prompt-column", "caption"]
    assert main(["score", *given]) == 0
    (config,) = started
    assert (config.images, config.output, config.batch, config.prompt_column) == ("pictures", "there", 4, "caption")
    assert (config.pool.max, config.pool.cpus, config.rows_per_file) == (3, 0.25, 256)
    assert [(one.scorer, one.options) for one in config.scorers] == [
        ("hpsv2.1", {"weights": "a.pt"}),
        ("my_package.my_module:Mine", {"strength": 0.5}),
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["pictures"], "scorers"),
        (["--scorer", "jpeg"], "images"),
        (["pictures", "--scorer", "jpeg", "--scorer", "jpeg"], "a scorer stands twice in jpeg, jpeg"),
        (["pictures", "--scorer", "jpeg", "--batch", "0"], "batch = 0"),
        (["pictures", "--scorer", "jpeg", "--option", "quality=50"], "begin with one of jpeg"),
        (["pictures", "--scorer", "jpeg", "--option", "jpeg.quality"], "set SCORER.NAME=VALUE"),
    ],
)
def test_wrong_settings_are_refused(
    started: list[ScoreConfig], given: list[str], said: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["score", *given]) == 2
    assert said in capsys.readouterr().err
    assert not started


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two files that count as images, and a Ray that must not be started."""

    def connect(*given: Any) -> bool:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(score_pictures, "connect", connect)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "pictures" / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["nowhere", "--scorer", "jpeg"], "images = 'nowhere': does not exist"),
        (["pictures", "--scorer", "jpg"], "did you mean jpeg?"),
        (["pictures", "--scorer", "toy-clip"], "has no prompts, which toy-clip needs; give a cat.txt beside cat.png"),
        (["pictures", "--scorer", "jpeg", "--output", "pictures/scores"], "lies inside of images"),
        (["pictures", "--scorer", "aesthetic", "--option", "aesthetic.head=./no.pth"], "no such file or folder"),
        (["pictures", "--scorer", "jpeg", "--output", "."], "holds other files"),
    ],
)
def test_what_cannot_be_scored_is_refused_before_ray_starts(
    folder: Path, given: list[str], said: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["score", *given]) == 2
    assert said in capsys.readouterr().err


def test_the_job_is_the_command() -> None:
    source = (Path(__file__).parents[2] / "jobs" / "score.py").read_text()
    assert 'main(["score", *sys.argv[1:]])' in source
