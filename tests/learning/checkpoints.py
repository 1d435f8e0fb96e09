"""Small checkpoints, for the tests of this folder."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np

from rayalign.learning.checkpoint import Checkpoint


def example(done: int = 1, **changes: Any) -> Checkpoint:
    draw = np.random.default_rng(done)
    arrays = [{"a.lora_A": draw.standard_normal((2, 3)).astype(np.float32)} for _ in range(2)]
    optimizer = {"0.step": np.array(3.0, dtype=np.float32), "0.exp_avg": np.ones((2, 3), dtype=np.float32)}
    rules = {"reference": {"steps": 8, "frozen_at": None, "divergence": 0.25}}
    history = "".join(f'{{"iteration": {n}}}\n' for n in range(done))
    usual = Checkpoint(done, {"seed": 0, "model": {"path": "stub"}}, *arrays, optimizer, rules=rules, history=history)
    return replace(usual, **changes)


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
        np.testing.assert_array_equal(found[name], value)


def assert_equal(found: Checkpoint, expected: Checkpoint) -> None:
    """Bit for bit, every field."""
    for field in fields(Checkpoint):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        if field.name in ("policy", "reference", "optimizer", "previous") and other is not None:
            assert_same(one, other)
        else:
            assert one == other
