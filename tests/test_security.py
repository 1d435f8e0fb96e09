"""What SECURITY.md promises of the sources, read off them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("rayalign", "jobs", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
RUNS_TEXT = {"eval", "exec", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}
UNPICKLES = {"pickle.load", "pickle.loads", "dill.load", "dill.loads", "cloudpickle.loads", "pandas.read_pickle"}


def calls() -> Iterator[tuple[str, str, dict[str, str]]]:
    """(file:line, name of what is called, its keyword arguments as source)."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                keywords = {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg}
                yield f"{path.relative_to(ROOT)}:{node.lineno}", ast.unparse(node.func), keywords


def test_pickled_weights_bring_no_code() -> None:
    loads = [(place, keywords) for place, name, keywords in calls() if name == "torch.load"]
    assert loads
    assert [place for place, keywords in loads if keywords.get("weights_only") != "True"] == []
    assert [place for place, name, _ in calls() if name in UNPICKLES] == []
    assert [place for place, _, keywords in calls() if keywords.get("allow_pickle", "False") != "False"] == []


def test_no_code_of_a_repository_is_run() -> None:
    asked = [place for place, _, words in calls() if {"trust_remote_code", "custom_pipeline"} & set(words)]
    assert asked == []


def test_no_text_reaches_a_shell_or_an_interpreter() -> None:
    assert [place for place, name, _ in calls() if name in RUNS_TEXT] == []
    assert [place for place, _, keywords in calls() if "shell" in keywords] == []


def test_yaml_makes_no_objects() -> None:
    unsafe = {"yaml.unsafe_load", "yaml.full_load", "yaml.load_all", "yaml.unsafe_load_all"}
    assert [place for place, name, _ in calls() if name in unsafe] == []
    assert [place for place, name, _ in calls() if name == "yaml.load"] == [
        place for place, name, _ in calls() if name == "yaml.load" and "config/files.py" in place
    ]


def test_pages_escape_what_they_show() -> None:
    environments = [words for _, name, words in calls() if name.endswith("Environment") and "undefined" in words]
    assert environments
    assert all(words.get("autoescape") == "True" for words in environments)
    for template in ROOT.glob("rayalign/**/*.html"):
        text = template.read_text(encoding="utf-8")
        assert "|safe" not in text.replace(" ", "")
        assert "autoescape false" not in text
