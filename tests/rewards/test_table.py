import subprocess
import sys

import pytest

from rayalign.config import RewardConfig
from rayalign.errors import ConfigError
from rayalign.rewards.clip import ClipScorer
from rayalign.rewards.jpeg import JpegScorer
from rayalign.rewards.protocol import Scorer
from rayalign.rewards.stub import StubScorer
from rayalign.rewards.table import SCORERS, build_scorer, check_scorer, scorer_facts

CLASSES = {"jpeg": JpegScorer, "clip": ClipScorer, "toy-clip": ClipScorer, "stub": StubScorer}


def test_importing_the_table_loads_nothing_heavy() -> None:
    code = (
        "import sys, rayalign.rewards.table as table; [table.check_scorer(name) for name in table.SCORERS]; "
        "print([name for name in ('torch', 'open_clip', 'PIL', 'numpy', 'ray', 'pydantic') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_table_says_what_the_classes_say() -> None:
    assert set(SCORERS) == set(CLASSES)
    for name, scorer in CLASSES.items():
        facts = scorer_facts(name)
        assert (facts.unit, facts.differentiable, facts.needs_prompt) == (
            scorer.unit,
            scorer.differentiable,
            scorer.needs_prompt,
        )


def test_an_unknown_scorer_names_the_nearest_and_all() -> None:
    with pytest.raises(ConfigError, match=r"did you mean jpeg\? Set one of jpeg, clip, toy-clip, stub") as caught:
        check_scorer("jpg")
    assert caught.value.field == "rewards.scorer"
    with pytest.raises(ConfigError, match="did you mean toy-clip"):
        check_scorer("toy_clip")


def test_builds_with_options() -> None:
    scorer = build_scorer(RewardConfig(scorer="jpeg", options={"quality": 50}))
    assert isinstance(scorer, Scorer)
    assert scorer.quality == 50


def test_a_wrong_option_names_the_options() -> None:
    with pytest.raises(ConfigError, match="'qualty'; the options are quality") as caught:
        build_scorer(RewardConfig(scorer="jpeg", options={"qualty": 50}))
    assert caught.value.field == "rewards.jpeg.options"
    with pytest.raises(ConfigError, match="quality = 500: set it between 1 and 100"):
        build_scorer(RewardConfig(scorer="jpeg", options={"quality": 500}))


def test_a_users_own_class() -> None:
    name = "rayalign.rewards.stub:StubScorer"
    check_scorer(name)
    assert scorer_facts(name).unit == StubScorer.unit
    assert isinstance(build_scorer(RewardConfig(scorer=name, options={"rule": "red"})), StubScorer)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:Scorer", "importing no_such_module failed with ModuleNotFoundError"),
        ("rayalign.rewards.stub:StubScore", "did you mean StubScorer"),
        ("rayalign.rewards.stub:FAILURES", "is not a class"),
        ("rayalign.rewards.protocol:Scores", "lacks differentiable, needs_prompt, unit, score"),
        (":Scorer", "failed with"),
    ],
)
def test_says_why_a_users_class_will_not_do(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_scorer(name)
