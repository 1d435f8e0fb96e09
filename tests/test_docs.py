"""Every code block of the documentation is true: commands take the arguments they are shown with, Python runs."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rayalign.cli import parse
from rayalign.commands import main as entry
from rayalign.evaluation.drift import MEANING
from rayalign.learning.iteration_stats import IterationStats
from rayalign.learning.meter import BY_TENTH, COUNTS, STEPS
from rayalign.objectives.table import OBJECTIVES
from rayalign.records import HeldOut, Standard

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELL, PYTHON = ("", "sh", "bash", "console"), "python"
STARTS = ("python jobs/", "rayalign ", "python benchmarks/", "ray job submit", "make ")


def blocks(page: Path, kinds: tuple[str, ...]) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")) if kind in kinds]


def commands() -> list[tuple[str, str]]:
    """(page, command) of every line that starts one, continued lines joined, comments and pipes left out."""
    found = []
    for page in PAGES:
        for block in blocks(page, SHELL):
            for line in block.replace("\\\n", " ").splitlines():
                command = re.split(r"\s+#\s|\s+\|\s|\s+&&\s|\s+>+\s", line.strip())[0].strip()
                if command.startswith(STARTS):
                    found.append((page.name, " ".join(command.split())))
    # The table of methods and families: a command a cell.
    cells = re.findall(r"`(jobs/[^`]+)`", (ROOT / "docs" / "methods.md").read_text(encoding="utf-8"))
    found += [("methods.md", f"python {cell}") for cell in cells if " --" in cell]
    return list(dict.fromkeys(found))


def job(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"job_{name}", ROOT / "jobs" / f"{name}.py")
    assert spec is not None, name
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_job(words: list[str]) -> None:
    """Parsed as the job would. Files that a reader is to bring need not be there: that is checked later."""
    module = job(Path(words[0]).stem)
    if not hasattr(module, "DEFAULTS"):
        return check_command([Path(words[0]).stem, *words[1:]])
    arguments = list(words[1:])
    if "--dry-run" in arguments:
        place = arguments.index("--dry-run")
        follows = arguments[place + 1 : place + 2]
        del arguments[place : place + (2 if follows and not follows[0].startswith("-") else 1)]
    if "--config" in arguments or "--resume" in arguments:
        return None  # of a run that is not here
    group = getattr(module, "StyleConfig", None)
    parse("", module.DEFAULTS, arguments, *([group, module.TOY] if group else []))
    return None


def check_command(words: list[str]) -> None:
    module, _ = entry.COMMANDS[words[0]]
    found = importlib.import_module(module)
    if words[0] == "train":
        if "--config" not in words:
            check_job(["jobs/tailorpo_sdxl.py", *words[1:]])
        return
    if hasattr(found, "_parser"):
        found._parser().parse_args(words[1:])


@pytest.mark.parametrize(("page", "command"), commands())
def test_a_command_takes_what_it_is_shown_with(page: str, command: str) -> None:
    words = [word for word in shlex.split(command) if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    if words[:3] == ["ray", "job", "submit"]:
        words = words[words.index("--") + 1 :]
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:]) <= set(targets)
    elif words[0] == "rayalign":
        check_command(words[1:])
    elif words[1].startswith("jobs/"):
        check_job(words[1:])
    else:
        assert (ROOT / words[1]).exists()


@pytest.mark.parametrize(
    ("page", "code"), [(page.name, code) for page in PAGES for code in blocks(page, (PYTHON,))]
)
def test_python_runs(page: str, code: str, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]


def test_links_between_pages_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_number_that_is_logged_stands_on_the_metrics_page() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    listed = "|".join(
        r"(?:\w+/)?" + re.escape(name).replace(r"\*", r"\w*").replace("<scorer>", r"\w+").replace("<n>", "0")
        for line in page.splitlines()
        if line.startswith("| `")
        for name in re.findall("`(?:train/|counts/|seconds/)?([^`]+)`", line.split(" | ")[0])
    )
    record = IterationStats(1, ["jpeg"]).record(0, {}, {}, {})
    heldout = HeldOut(0, 0.0, {"jpeg": 0.0}, dict.fromkeys(MEANING, 0.0), 1, 0, 0.0)
    logged = {"loss", "grad_norm", *COUNTS, *STEPS, *heldout.metrics()}
    logged |= {*record.metrics, *record.counts, *record.seconds}
    logged |= {f"{name}_by_tenth/0" for name in BY_TENTH} | {f"score_{name}/jpeg" for name in Standard._fields}
    logged |= {name for objective in OBJECTIVES for name in objective.metrics}
    for file in (ROOT / "rayalign").glob("*/*.py"):
        logged |= set(re.findall(r'"((?:guard|reference|memory)/\w+)"', file.read_text(encoding="utf-8")))
    assert len(logged) > 50
    assert sorted(name for name in logged if not re.fullmatch(listed, name)) == []


def test_every_page_is_in_the_sites_navigation() -> None:
    listed = set(re.findall(r"(\w+\.md)", (ROOT / "mkdocs.yml").read_text()))
    assert listed == {page.name for page in (ROOT / "docs").glob("*.md")}


def test_the_site_builds(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "site" / "index.html").exists()
