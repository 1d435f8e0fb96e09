import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rayalign.config import RewardConfig
from rayalign.errors import ConfigError
from rayalign.rewards.aesthetic import AestheticScorer
from rayalign.rewards.clip import ClipScorer, toy_clip
from rayalign.rewards.hps import HpsV2Scorer, HpsV21Scorer
from rayalign.rewards.imagereward import ImageRewardScorer
from rayalign.rewards.jpeg import JpegLargeScorer, JpegScorer
from rayalign.rewards.pickscore import PickScorer
from rayalign.rewards.protocol import Scorer
from rayalign.rewards.stub import StubScorer
from rayalign.rewards.table import (
    EMBEDDERS,
    SCORERS,
    absolute_options,
    build_scorer,
    check_scorer,
    scorer_facts,
)
from rayalign.rewards.tower import TextTowerScorer

CLASSES = {
    "pickscore": PickScorer,
    "hpsv2": HpsV2Scorer,
    "hpsv2.1": HpsV21Scorer,
    "imagereward": ImageRewardScorer,
    "aesthetic": AestheticScorer,
    "clip": ClipScorer,
    "toy-clip": ClipScorer,
    "jpeg": JpegScorer,
    "jpeg-large": JpegLargeScorer,
    "stub": StubScorer,
}


def test_importing_the_table_loads_nothing_heavy() -> None:
    code = (
        "import sys, rayalign.rewards.table as table; [table.check_scorer(name) for name in table.SCORERS]; "
        "print([name for name in ('torch', 'open_clip', 'PIL', 'numpy', 'ray', 'pydantic') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("name", CLASSES)
def test_the_table_says_what_the_classes_say(name: str) -> None:
    facts, scorer = scorer_facts(name), CLASSES[name]
    assert (facts.unit, facts.differentiable, facts.needs_prompt) == (
        scorer.unit,
        scorer.differentiable,
        scorer.needs_prompt,
    )
    if name != "toy-clip":  # the class is of any CLIP
        assert facts.num_tokens == getattr(scorer, "num_tokens", None)
        assert facts.licence == scorer.licence
        assert facts.weights == getattr(scorer, "weights", ())
    module, _, attribute = facts.path.partition(":")
    assert getattr(importlib.import_module(module), attribute) is (toy_clip if name == "toy-clip" else scorer)


def test_all_are_listed() -> None:
    assert list(SCORERS) == list(CLASSES)
    assert {name for name, kind in CLASSES.items() if issubclass(kind, TextTowerScorer)} == set(EMBEDDERS)


def test_toy_clip_reads_as_many_tokens() -> None:
    assert scorer_facts("toy-clip").num_tokens == toy_clip(device="cpu").tokenizer.context_length


@pytest.mark.parametrize("name", [name for name, facts in SCORERS.items() if facts.weights])
def test_weights_are_the_defaults_of_the_constructor(name: str) -> None:
    options = inspect.signature(CLASSES[name]).parameters
    by_another_name = {("aesthetic", "head"), ("clip", "model"), ("clip", "pretrained")}
    for weights in scorer_facts(name).weights:
        assert weights.option in options
        if (name, weights.option) not in by_another_name:
            assert options[weights.option].default == weights.source


@pytest.mark.parametrize("name", [name for name, facts in SCORERS.items() if facts.weights])
def test_missing_local_weights_are_told_before_anything_starts(name: str, tmp_path: Path) -> None:
    for weights in scorer_facts(name).weights:
        gone = str(tmp_path / "gone.pt")
        with pytest.raises(ConfigError, match="no such file or folder; set a folder that holds") as caught:
            check_scorer(name, {weights.option: gone})
        assert (caught.value.field, caught.value.value) == (f"rewards.{name}.options.{weights.option}", gone)
        with pytest.raises(ConfigError, match=r"the folder lacks .*; set a folder that holds"):
            check_scorer(name, {weights.option: str(tmp_path)})
        check_scorer(name, {weights.option: "owner/name"})  # the hub is not asked
        check_scorer(name, {"device": "cpu"})


def test_local_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"model": "./clip", "processor": "owner/name", "chunk": 4}
    assert absolute_options("pickscore", given) == given | {"model": f"{tmp_path}/clip"}
    assert absolute_options("clip", {"model": "local-dir:./a", "pretrained": "laion2b_s32b_b79k"}) == {
        "model": f"local-dir:{tmp_path}/a",
        "pretrained": "laion2b_s32b_b79k",
    }


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


OWN = """
import numpy as np

class Red:
    differentiable = False
    needs_prompt = False
    unit = "mean of the red channel, 0 to 1"

    def score(self, images_BCHW, prompts):
        return images_BCHW[:, 0].mean(axis=(1, 2))

class Power(Red):
    licence = "MIT"
    num_tokens = 12
    runtime_env = {"pip": ["emoji"]}
    default_options = {"power": 2.0, "offset": 1.0}

    def __init__(self, power, offset):
        self.power, self.offset = power, offset

class Odd(Red):
    runtime_env = "conda"
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "my_module.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_package.my_module"
    for name in ("my_package", "my_package.my_module"):
        sys.modules.pop(name, None)


def test_a_users_class_states_what_it_must(own: str) -> None:
    facts = scorer_facts(f"{own}:Red")
    assert (facts.path, facts.unit) == (f"{own}:Red", "mean of the red channel, 0 to 1")
    assert (facts.num_tokens, facts.licence, facts.weights, facts.runtime_env) == (None, "not stated", (), {})


def test_a_users_class_may_state_more(own: str) -> None:
    name = f"{own}:Power"
    facts = scorer_facts(name)
    assert (facts.licence, facts.num_tokens, facts.runtime_env) == ("MIT", 12, {"pip": ["emoji"]})
    scorer = build_scorer(RewardConfig(scorer=name, options={"power": 3.0}))
    assert (scorer.power, scorer.offset) == (3.0, 1.0)  # the config's own, the class's default
    with pytest.raises(ConfigError, match="runtime_env is a str; set it to a dict"):
        check_scorer(f"{own}:Odd")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:Scorer", "no module no_such_module in "),
        ("rayalign.rewards.stub:StubScore", "did you mean StubScorer"),
        ("rayalign.rewards.stub:FAILURES", "is not a class"),
        ("rayalign.rewards.protocol:Scores", "lacks differentiable, needs_prompt, unit, score"),
        (":Scorer", "failed with"),
    ],
)
def test_says_why_a_users_class_will_not_do(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_scorer(name)
