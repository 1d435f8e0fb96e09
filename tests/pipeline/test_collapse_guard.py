"""What worker 0 does about a collapse, without Ray: whom it warns how often, and which policy it keeps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayalign.config import RunConfig
from rayalign.learning.checkpoint_place import LocalPlace
from rayalign.learning.good_policy import good_version, load_good
from rayalign.pipeline.collapse_guard import CollapseGuard
from rayalign.pipeline.resume import store_of
from rayalign.records import HeldOut, IterationRecord

SPREAD = [0.9, 1.1] * 4


def held_out(version: int, reward: float = 1.0, diversity: float = 1.0) -> HeldOut:
    """Factors on what the untuned pictures have."""
    values = {"heldout/reward": reward, "image/diversity": diversity}
    by_prompt = {name: [factor * value for value in SPREAD] for name, factor in values.items()}
    return HeldOut(version, reward, {}, {}, 16, 0, 0.0, by_prompt)


def guard_of(folder: Path, action: str, name: str = "run") -> CollapseGuard:
    tree: dict[str, Any] = {"output": str(folder), "name": name, "guard": {"on_collapse": action}}
    config = RunConfig.model_validate(tree | {"evaluation": {"every": 2}})
    config.folder.mkdir(exist_ok=True)
    return CollapseGuard(config, store_of(config).place)


def place(folder: Path) -> LocalPlace:
    return LocalPlace(folder / "checkpoints")


def policy(version: int) -> dict[str, np.ndarray]:
    return {"lora": np.full(2, version, np.float32)}


def look(guard: CollapseGuard, found: HeldOut) -> tuple[bool, dict[str, Any]]:
    record = IterationRecord(found.version - 1, found.version, {"reward_low": math.nan}, {}, {}, 0)
    alarm, more = guard.look(record, found, policy(found.version))
    return alarm is not None, more


GOOD, COLLAPSED = {"reward": 1.2}, {"reward": 1.5, "diversity": 0.3}


def test_a_rollback_goes_to_the_last_version_measured_good(tmp_path: Path) -> None:
    guard = guard_of(tmp_path, "rollback")
    guard.begin(held_out(0), policy(0))
    assert good_version(place(tmp_path / "run")) == 0
    assert look(guard, held_out(2, **GOOD)) == (False, {})
    assert look(guard, held_out(4, **COLLAPSED)) == (True, {"rollback": 2})
    np.testing.assert_array_equal(load_good(place(tmp_path / "run"), 2)["lora"], [2, 2])


@pytest.mark.parametrize(("action", "alarms"), [("warn", [True, False]), ("stop", [True, True])])
def test_a_warning_is_given_once_and_a_stop_whenever_it_is_met(tmp_path: Path, action: str, alarms: list[bool]) -> None:
    guard = guard_of(tmp_path, action)
    guard.begin(held_out(0), policy(0))
    assert [look(guard, held_out(version, **COLLAPSED)) for version in (2, 4)] == [(one, {}) for one in alarms]
    assert good_version(place(tmp_path / "run")) is None


def test_resumed_in_place_it_keeps_its_policy_and_elsewhere_the_one_it_came_with(tmp_path: Path) -> None:
    first = guard_of(tmp_path, "rollback")
    first.begin(held_out(0), policy(0))
    look(first, held_out(2, **GOOD))
    here, elsewhere = guard_of(tmp_path, "rollback"), guard_of(tmp_path, "rollback", name="other")
    for guard in (here, elsewhere):
        guard.resume(first.state(), 3, policy(3))
        assert guard.begun
    assert look(here, held_out(4, **COLLAPSED)) == (True, {"rollback": 2})
    assert look(elsewhere, held_out(4, **COLLAPSED)) == (True, {"rollback": 3})
    np.testing.assert_array_equal(load_good(place(tmp_path / "other"), 3)["lora"], [3, 3])


def test_without_an_untuned_measurement_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    guard = guard_of(tmp_path, "rollback")
    guard.resume({}, 3, policy(3))
    assert not guard.begun
    assert look(guard, held_out(4, **COLLAPSED)) == (False, {})
