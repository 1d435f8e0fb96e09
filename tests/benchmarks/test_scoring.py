"""The scoring benchmark's own arithmetic and scorers, without Ray's services; its numbers come from running it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pytest

from rayalign.config import RewardConfig
from rayalign.rewards.local import LocalScoreFn
from rayalign.rewards.table import build_scorer
from rayalign.rewards.testing import check_scorer_conforms

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def way(*scores: float) -> Callable[[], Awaitable[np.ndarray]]:
    async def ask() -> np.ndarray:
        return np.array(scores, dtype=np.float32)

    return ask


def test_rates_and_ratios_by_hand() -> None:
    from scoring_load import _compared

    # 8 images: 2, 4 and 1 a second, against 4, 16 and 8: 2, 4 and 8 times as many, side by side
    found = _compared({"slow": [4.0, 2.0, 8.0], "fast": [2.0, 0.5, 1.0]}, 8)
    assert found["slow"]["ratio"] == {"median": 1.0, "min": 1.0, "max": 1.0}
    assert found["slow"]["images_per_s"] == {"median": 2.0, "min": 1.0, "max": 4.0}
    assert found["fast"]["ratio"] == {"median": 4.0, "min": 2.0, "max": 8.0}
    assert found["fast"]["images_per_s"] == {"median": 8.0, "min": 4.0, "max": 16.0}


def test_ways_that_differ_or_fail_compare_nothing() -> None:
    from scoring_load import _side_by_side

    seconds, same = asyncio.run(_side_by_side({"one": way(1, 2), "other": way(1, 2)}, repeats=3))
    assert same
    assert {name: len(taken) for name, taken in seconds.items()} == {"one": 3, "other": 3}  # the warm-up is left out
    assert not asyncio.run(_side_by_side({"one": way(1, 2), "other": way(1, 2.5)}, repeats=1))[1]
    with pytest.raises(RuntimeError, match="other: 1 images got no score"):
        asyncio.run(_side_by_side({"one": way(1, 2), "other": way(1, np.nan)}, repeats=1))


def test_the_work_of_a_core_is_the_same_for_an_image_whatever_its_company() -> None:
    from scoring_load import Grinder

    check_scorer_conforms(Grinder, rounds=10)
    images = np.random.default_rng(0).random((4, 3, 8, 8), dtype=np.float32)
    assert len(set(Grinder(10).score(images, [""] * 4))) == 4
    assert not np.array_equal(Grinder(10).score(images, []), Grinder(11).score(images, []))


def test_everything_is_measured_of_services_that_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    import scoring_load
    from scoring import parse, report, settings

    @contextmanager
    def in_this_process(run: str, reward: RewardConfig, *_: object) -> Iterator[LocalScoreFn]:
        yield LocalScoreFn({reward.scorer: (build_scorer(reward), 1.0)})

    monkeypatch.setattr(scoring_load, "stub_cluster", nullcontext)
    monkeypatch.setattr(scoring_load, "_served", in_this_process)
    options = ["--scorer", "stub", "--images", "5", "--batch", "2", "--work-s", "0.001", "--repeats", "2"]
    result = scoring_load.measure(parse(options))
    assert result["same_scores"]
    assert [len(result[part]) for part in ("batching", "replicas", "overhead")] == [4, 2, 3]
    assert [round(call["megabytes"], 1) for call in result["overhead"]] == [0.2, 6.3, 50.3]
    # In this process there is next to nothing beside the scorer's own time; a copy of the gradient at most.
    assert all(0 < call["overhead_s"]["min"] < 0.5 for call in result["overhead"])
    assert "calls of 2 images" in report(result | {"settings": settings(parse(options))})


def test_the_report_has_every_number() -> None:
    from scoring import parse, report, settings

    one = {"median": 0.0123, "min": 0.0111, "max": 0.0222}
    part = {"first": {"images_per_s": one, "ratio": one}, "second": {"images_per_s": one, "ratio": one}}
    call = {"images": 2, "side": 512, "megabytes": 6.29, "overhead_s": one, "overhead_with_gradient_s": one}
    result = {"settings": settings(parse([])), "batching": part, "replicas": part, "overhead": [call]}
    text = report(result | {"same_scores": True})
    assert text.count("| second | 0.0123 | 0.0111 | 0.0222 | 0.01 | 0.01 | 0.02 |") == 2
    assert "| 6.3 MB (2 x 512 px) | with gradient | 12.3 | 11.1 | 22.2 |" in text
    assert text.endswith("the same")
    assert report(result | {"same_scores": False}).endswith("NOT THE SAME")


def test_help_imports_nothing_heavy() -> None:
    code = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); import scoring; print(sorted(set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert not {"'ray'", "'torch'", "'rayalign'"} & set(loaded.strip("[]\n").split(", "))
