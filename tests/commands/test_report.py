from __future__ import annotations

from pathlib import Path

import pytest

from rayalign.commands.main import main
from tests.evaluation.test_report_browser import GAINS, make_run


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [make_run(tmp_path / "runs" / name, GAINS) for name in ("first", "second")]


def test_one_run_has_its_page_written_again(runs: list[Path], capsys: pytest.CaptureFixture) -> None:
    (runs[0] / "summary.json").unlink()  # as while it goes
    assert main(["report", str(runs[0])]) == 0
    assert Path(capsys.readouterr().out.strip()) == runs[0] / "report.html"
    assert "No summary yet" in (runs[0] / "report.html").read_text()


def test_or_elsewhere(runs: list[Path], tmp_path: Path) -> None:
    assert main(["report", str(runs[0]), "--output", str(tmp_path / "new" / "page.html")]) == 0
    assert "first" in (tmp_path / "new" / "page.html").read_text()
    assert not (runs[0] / "report.html").exists()


def test_several_runs_share_a_page_and_files_beside_them_are_passed_over(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "old.html").write_text("")
    given = sorted(str(path) for path in (tmp_path / "runs").iterdir())
    assert len(given) == 3
    assert main(["report", *given]) == 0
    assert capsys.readouterr().out == "runs.html\n"
    assert "2 runs compared" in (tmp_path / "runs.html").read_text()


@pytest.mark.parametrize("name", ["nowhere", "empty", "file"])
def test_what_is_no_run_is_refused(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    assert main(["report", str(tmp_path / name)]) == 2
    assert f"{name}': is no run's folder" in capsys.readouterr().err
