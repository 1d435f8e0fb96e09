from __future__ import annotations

import numpy as np
import pytest

from rayalign.models.average import PolicyAverage, without_steps
from tests.toys import model_of, nudged


def test_it_follows_the_policy_by_its_decay() -> None:
    model = model_of("toy-sd15", adapters=("policy",))
    average = PolicyAverage(model.weights, 0.9)
    wanted = model.weights.state()
    for seed in range(1, 4):
        arrays = nudged(model, seed)
        model.weights.load("policy", arrays)
        average.step()
        # The n-th step weighs min(0.9, (1 + n) / (10 + n)) with n = steps before; the very first takes the policy.
        decay = 0.0 if seed == 1 else min(0.9, seed / (9 + seed))
        wanted = {name: decay * wanted[name] + (1 - decay) * value for name, value in arrays.items()}
    found = without_steps(average.state())
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)


def test_a_restored_average_goes_on_as_if_nothing_had_happened() -> None:
    model = model_of("toy-sd15", adapters=("policy",))
    whole, stopped = PolicyAverage(model.weights, 0.9), PolicyAverage(model.weights, 0.9)
    for seed in range(1, 5):
        if seed == 3:
            kept = stopped.state()
            stopped = PolicyAverage(model.weights, 0.9)
            stopped.restore(kept)
        model.weights.load("policy", nudged(model, seed))
        whole.step()
        stopped.step()
    one, other = whole.state(), stopped.state()
    assert one["steps"][0] == 4
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])


def test_one_that_begins_late_begins_at_the_policy_of_then() -> None:
    model = model_of("toy-sd15", adapters=("policy",))
    average = PolicyAverage(model.weights, 0.9)
    model.weights.load("policy", nudged(model, 1))
    average.step()
    arrays = nudged(model, 2)
    model.weights.load("policy", arrays)
    average.begin()
    state = average.state()
    assert state["steps"][0] == 0
    for name, value in arrays.items():
        np.testing.assert_array_equal(state[name], value)


@pytest.mark.parametrize("path", ["toy-sdxl"])
def test_names_are_those_of_the_policy(path: str) -> None:
    model = model_of(path, adapters=("policy",))
    arrays = nudged(model, 1)
    model.weights.load("policy", arrays)
    found = without_steps(PolicyAverage(model.weights, 0.9).state())
    for name, value in arrays.items():
        np.testing.assert_array_equal(found[name], value)
