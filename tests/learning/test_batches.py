from __future__ import annotations

import numpy as np
import pytest
import torch

from rayalign.learning.batches import blank, count_statuses, kept_rows, micro_batches
from rayalign.records import tensor_values
from tests.learning.tables import pairs
from tests.toys import model_of

CPU = torch.device("cpu")
STATUSES = ("kept", "tie", "kept", "score_failed", "kept", "kept", "kept")


@pytest.fixture(scope="module")
def table():
    return pairs(model_of("stub"), 0, STATUSES)


def test_every_status_is_counted(table) -> None:
    assert count_statuses(table) == {"kept": 5, "tie": 1, "score_failed": 1}
    assert count_statuses(table.slice(0, 1)) == {"kept": 1, "tie": 0, "score_failed": 0}


@pytest.mark.parametrize(("size", "lengths"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (40, [5])])
def test_micro_batches_keep_order_and_lose_nothing(table, size: int, lengths: list[int]) -> None:
    kept = kept_rows(table)
    batches = micro_batches(kept, size, CPU)
    assert [len(batch) for batch in batches] == lengths
    assert [prompt for batch in batches for prompt in batch.prompts] == kept["prompt"].to_pylist()
    for name in ("x_t", "winner", "loser"):
        values = torch.cat([getattr(batch, name) for batch in batches])
        np.testing.assert_array_equal(values.numpy(), tensor_values(table[name])[[0, 2, 4, 5, 6]])
        assert values.dtype == torch.float32
    for name in ("timestep", "timestep_prev"):
        values = torch.cat([getattr(batch, name) for batch in batches])
        assert values.tolist() == kept[name].to_pylist()
        assert values.dtype == torch.int64


def test_no_rows_no_batches(table) -> None:
    assert micro_batches(table.slice(0, 0), 4, CPU) == []


def test_a_batch_is_a_copy_of_the_stores_memory(table) -> None:
    before = tensor_values(table["x_t"]).copy()
    micro_batches(table, 7, CPU)[0].x_t.fill_(9)
    np.testing.assert_array_equal(tensor_values(table["x_t"]), before)


def test_blank_keeps_all_but_the_latents(table) -> None:
    batch = micro_batches(table, 2, CPU)[0]
    empty = blank(batch)
    assert empty.prompts == batch.prompts
    assert torch.equal(empty.timestep, batch.timestep)
    assert not any(value.any() for value in (empty.x_t, empty.winner, empty.loser))
    assert batch.x_t.any()
