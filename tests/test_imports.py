"""The architecture's rules, read off the sources: imports go downward, and heavy libraries stay in their folders."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*ROOT.glob("rayalign/**/*.py"), *ROOT.glob("jobs/*.py")])

# Lower imports nothing from higher; a row is one level, whose members are apart from each other (but see BESIDE).
LEVELS = (
    ("redaction",),
    ("errors",),
    ("toy",),
    ("settings", "records", "trees", "whole_files", "entry"),
    ("algorithms",),
    ("objectives",),
    ("config",),
    ("prompts", "progress", "weight_files", "hub"),
    ("models", "rewards"),
    ("sampling", "learning", "data"),
    ("evaluation", "planning"),
    ("pipeline", "doctor"),
    ("cli",),
    ("commands",),
    ("jobs",),
)
LEVEL = {part: level for level, parts in enumerate(LEVELS) for part in parts}
# `rayalign/__init__.py` holds the version and may be imported by all.
HOLDS_VERSION = "__init__"


def part_of(path: Path) -> str:
    """The folder (or module) of `rayalign` a file belongs to; `jobs` for a job."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "jobs" if parts[0] == "jobs" else parts[1]


def imported(path: Path) -> set[str]:
    """Dotted names of all modules a file imports, anywhere in it, a function's own and `TYPE_CHECKING`'s included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by the full name"
            whole = node.module == "rayalign"
            found |= {f"rayalign.{alias.name}" for alias in node.names} if whole else {str(node.module)}
    return found


def offenders(library: str, allowed: tuple[str, ...]) -> list[str]:
    return [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if part_of(path) not in allowed and library in {name.partition(".")[0] for name in imported(path)}
    ]


def test_every_part_has_its_level() -> None:
    assert {part_of(path) for path in SOURCES} - {HOLDS_VERSION} == set(LEVEL)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_downward(path: Path) -> None:
    part = part_of(path)
    if part == HOLDS_VERSION:
        assert imported(path) <= {"__future__"}
        return
    ours = {name.split(".")[1] for name in imported(path) if name.startswith("rayalign.")} - {part, "__version__"}
    assert not [other for other in ours if LEVEL[other] >= LEVEL[part]]


def test_ray_only_in_the_pipeline() -> None:
    assert offenders("ray", ("pipeline",)) == []


def test_diffusers_only_where_models_are() -> None:
    assert offenders("diffusers", ("models", "toy")) == []


def test_algorithms_are_pure_torch() -> None:
    allowed = {"torch", "rayalign", *sys.stdlib_module_names}
    for path in (ROOT / "rayalign" / "algorithms").glob("*.py"):
        names = imported(path)
        assert {name.partition(".")[0] for name in names} <= allowed
        ours = {name.split(".")[1] for name in names if name.startswith("rayalign.")}
        assert ours <= {"algorithms"}


def test_files_are_short() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: length for name, length in lengths.items() if length > 300} == {}
