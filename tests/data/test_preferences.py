from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from rayalign.data.preferences import (
    BAD_IMAGE,
    NO_CAPTION,
    NO_IMAGE,
    PreferenceRow,
    broken,
    checked,
    count_rows,
    epoch_order,
    num_rows,
    read_rows,
)
from rayalign.records import BROKEN, KEPT, TIE


@dataclass
class CountingIndex:
    """Rows named by group and offset; notes what it was asked."""

    group_rows: Sequence[int]
    stamp: str = ""
    asked: list[tuple[int, list[int]]] = field(default_factory=list)

    def read_group(self, group: int, offsets: Sequence[int]) -> list[PreferenceRow]:
        self.asked.append((group, list(offsets)))
        return [PreferenceRow(f"{group}/{offset}", b"", b"") for offset in offsets]


def test_rows_come_in_the_order_asked_and_each_group_is_read_once() -> None:
    index = CountingIndex((3, 1, 4))  # rows 0-2, 3, 4-7
    rows = read_rows(index, [7, 0, 3, 4, 2, 0])
    assert [row.prompt for row in rows] == ["2/3", "0/0", "1/0", "2/0", "0/2", "0/0"]
    assert index.asked == [(2, [3, 0]), (0, [0, 2, 0]), (1, [0])]
    assert num_rows(index) == 8
    assert read_rows(index, []) == []


@pytest.mark.parametrize("number", [-1, 8])
def test_a_row_beyond_the_set_is_an_error(number: int) -> None:
    with pytest.raises(IndexError, match="the 8 of the set"):
        read_rows(CountingIndex((3, 1, 4)), [0, number])


def test_a_row_is_kept_or_broken_for_one_reason(image: Callable[..., bytes]) -> None:
    good, bad = image(), image()[:100]
    assert checked(" a cat ", good, good) == PreferenceRow("a cat", good, good, KEPT)
    assert checked(None, bad, bad) == PreferenceRow("", None, None, BROKEN, NO_CAPTION)
    assert checked(" \n", good, good).reason == NO_CAPTION
    assert checked("a cat", good, None) == PreferenceRow("a cat", None, None, BROKEN, NO_IMAGE)
    assert checked("a cat", bad, good).reason == checked("a cat", good, bad).reason == BAD_IMAGE
    assert checked("half a pair: \ud83d", good, good).prompt == "half a pair:"


def test_all_rows_are_counted_by_reason() -> None:
    rows = [PreferenceRow("a", b"", b"")] * 3 + [PreferenceRow("b", None, None, TIE)]
    rows += [broken(NO_CAPTION), broken(BAD_IMAGE, "c"), broken(BAD_IMAGE, "d")]
    assert count_rows(rows) == {"kept": 3, "tie": 1, f"broken: {NO_CAPTION}": 1, f"broken: {BAD_IMAGE}": 2}


@pytest.mark.parametrize(
    ("group_rows", "window"), [((5,), 100), ((3, 1, 4), 2), ((1,) * 50, 7), ((10,) * 20, 25), ((4, 0, 3), 1), ((), 8)]
)
def test_every_row_is_in_an_epoch_exactly_once(group_rows: tuple[int, ...], window: int) -> None:
    for epoch in range(3):
        order = epoch_order(group_rows, seed=0, epoch=epoch, window=window)
        assert sorted(order.tolist()) == list(range(sum(group_rows)))


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    groups = (10,) * 20
    first = epoch_order(groups, seed=3, epoch=1, window=40)
    np.testing.assert_array_equal(epoch_order(groups, seed=3, epoch=1, window=40), first)
    others = [epoch_order(groups, 3, 2, 40), epoch_order(groups, 4, 1, 40)]
    # Two random orders of 200 rows agree at one place on average.
    assert all((first == other).sum() < 10 for other in others)


def test_a_ticket_of_a_large_set_touches_few_groups() -> None:
    """50 groups of 10, windows of 30: three groups a window, so that rows in a row come from at most six groups."""
    order = epoch_order((10,) * 50, seed=0, epoch=0, window=30)
    groups = order // 10
    assert max(len(set(groups[start : start + 16].tolist())) for start in range(485)) <= 6
    in_windows = [set(groups[start : start + 30].tolist()) for start in range(0, 480, 30)]
    assert all(len(window) == 3 for window in in_windows)
    assert len(set(groups[:8].tolist())) > 1  # but not the rows of one group in a row
    assert sorted({min(window) // 3 for window in in_windows}) != [min(window) // 3 for window in in_windows]


def test_a_small_set_is_shuffled_as_a_whole() -> None:
    """Where row 0 of 8 (two groups of 4) ends up over many epochs: everywhere alike."""
    places = [epoch_order((4, 4), seed=0, epoch=epoch).tolist().index(0) for epoch in range(4000)]
    # 4000 / 8 = 500 a place, standard deviation sqrt(4000 / 8 * 7 / 8) = 21.
    assert np.abs(np.bincount(places, minlength=8) - 500).max() < 90


def test_a_window_without_rows_is_refused() -> None:
    with pytest.raises(ValueError, match="window = 0"):
        epoch_order((3,), 0, 0, window=0)
