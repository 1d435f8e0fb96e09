from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from rayalign.learning.batches import blank, contrast_groups, count_statuses, kept_rows, micro_batches, to_batch
from rayalign.models.text_to_image import TextToImage
from rayalign.records import EMBEDDINGS, LATENTS, STATUSES, tensor_column, tensor_values
from tests.learning.tables import WIDTH, embedded, pairs
from tests.toys import model_of

CPU = torch.device("cpu")
MIXED = ("kept", "tie", "kept", "score_failed", "kept", "kept", "kept")
KEPT = [0, 2, 4, 5, 6]


@pytest.fixture(scope="module")
def model() -> TextToImage:
    return model_of("stub")


@pytest.fixture(scope="module")
def table(model: TextToImage) -> pa.Table:
    return pairs(model, 0, MIXED)


def test_every_status_is_counted(table: pa.Table) -> None:
    none = dict.fromkeys(STATUSES, 0)
    assert dict(count_statuses(table)) == none | {"kept": 5, "tie": 1, "score_failed": 1}
    assert dict(count_statuses(table.slice(0, 1))) == none | {"kept": 1}


@pytest.mark.parametrize(("size", "lengths"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (40, [5])])
def test_micro_batches_keep_order_and_lose_nothing(
    model: TextToImage, table: pa.Table, size: int, lengths: list[int]
) -> None:
    kept = kept_rows(table)
    batches = micro_batches(kept, size, model.kernel, CPU)
    assert [len(batch) for batch in batches] == lengths
    assert [prompt for batch in batches for prompt in batch.prompts] == kept["prompt"].to_pylist()
    assert all(batch.valid.all() for batch in batches)
    for name in ("x_t", "winner", "loser"):
        values = torch.cat([batch.latents[name] for batch in batches])
        np.testing.assert_array_equal(values.numpy(), tensor_values(table[name])[KEPT])
        assert values.dtype == torch.float32
    for name in ("timestep", "timestep_prev"):
        values = torch.cat([getattr(batch, name) for batch in batches])
        assert values.tolist() == kept[name].to_pylist()
        assert values.dtype == torch.int64


def test_no_rows_no_batches(model: TextToImage, table: pa.Table) -> None:
    assert micro_batches(table.slice(0, 0), 4, model.kernel, CPU) == []


@pytest.mark.parametrize("rows", LATENTS)
def test_every_kind_of_row_comes_with_its_own_columns(model: TextToImage, rows: str) -> None:
    table = pairs(model, 1, MIXED, rows, iteration=[3] * 7, slot=[2] * 7)
    batch = to_batch(table, model.kernel, CPU)
    assert (batch.rows, tuple(batch.latents)) == (rows, LATENTS[rows])
    assert batch.steps == ([0] * 7 if rows == "clean" else [19, 10, 2, 19, 10, 2, 19])
    assert batch.keys == [(3, 2, sample) for sample in range(7)]
    assert batch.valid.tolist() == [status == "kept" for status in MIXED]
    assert batch.advantage.tolist() == table["advantage"].to_pylist()
    assert batch.log_prob.tolist() == table["log_prob"].to_pylist()
    assert batch.embeddings is None


def test_embeddings_come_along_where_they_were_appended(model: TextToImage) -> None:
    table = embedded(pairs(model, 1, MIXED), 5)
    batches = micro_batches(kept_rows(table), 3, model.kernel, CPU)
    for number, name in enumerate(EMBEDDINGS):
        found = torch.cat([batch.embeddings[number] for batch in batches])
        assert found.shape == (5, WIDTH)
        assert found.tolist() == [table[name].to_pylist()[row] for row in KEPT]


def test_a_batch_is_a_copy_of_the_stores_memory(model: TextToImage, table: pa.Table) -> None:
    before = tensor_values(table["x_t"]).copy()
    micro_batches(table, 7, model.kernel, CPU)[0].latents["x_t"].fill_(9)
    np.testing.assert_array_equal(tensor_values(table["x_t"]), before)


@pytest.mark.parametrize("rows", LATENTS)
def test_blank_clears_what_is_no_preference_and_keeps_the_rest(model: TextToImage, rows: str) -> None:
    """Even NaN, which a sum with weight 0 would keep."""
    nan = tensor_column(np.full((7, *model.latent_shape), np.nan))
    table = pairs(model, 1, MIXED, rows, winner=nan, advantage=[float("nan")] * 7)
    batch = to_batch(table, model.kernel, CPU)
    empty = blank(batch)
    assert empty.prompts == batch.prompts
    assert torch.equal(empty.timestep, batch.timestep)
    dropped = ~batch.valid
    for name in LATENTS[rows]:
        assert not empty.latents[name][dropped].any()
        assert torch.equal(empty.latents[name][batch.valid].isnan(), batch.latents[name][batch.valid].isnan())
    assert batch.latents["winner"].isnan().all()
    assert not empty.advantage[dropped].any()
    assert not empty.log_prob[dropped].any()
    assert torch.equal(empty.log_prob[batch.valid], batch.log_prob[batch.valid])


@pytest.mark.parametrize(("size", "lengths"), [(2, [2, 1, 2, 2]), (3, [3, 2, 2]), (9, [3, 2, 2])])
def test_contrast_groups_hold_one_step_each(table: pa.Table, size: int, lengths: list[int]) -> None:
    """Steps of the 7 rows: 19, 10, 2, 19, 10, 2, 19, hence 3 of 19 and 2 each of 10 and 2."""
    groups = contrast_groups(table, size)
    assert [len(group) for group in groups] == lengths
    assert all(len(set(group["step"].to_pylist())) == 1 for group in groups)
    samples = [sample for group in groups for sample in group["sample"].to_pylist()]
    assert samples == [0, 3, 6, 1, 4, 2, 5]


def test_contrast_groups_are_as_equal_as_they_can_be(model: TextToImage) -> None:
    """Nine rows in fours would leave one alone, with nobody to be set against."""
    table = pairs(model, 0, ("kept",) * 9, "clean")
    assert [len(group) for group in contrast_groups(table, 4)] == [3, 3, 3]
