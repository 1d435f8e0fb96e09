"""Scores of pictures of any sizes: by size, each failure with its reason, and alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rayalign.rewards.offline import MAX_REASON, one_line, score_pictures
from rayalign.rewards.stub import StubScorer


def grey(level: int, height: int = 4, width: int = 4) -> np.ndarray:
    return np.full((height, width, 3), level, dtype=np.uint8)


class Noting(StubScorer):
    """Keeps the shapes it was called with; `answer` may spoil what it says."""

    def __init__(self, answer: Callable[[np.ndarray, np.ndarray], Any] = lambda scores, images: scores) -> None:
        super().__init__()
        self.answer, self.shapes = answer, []  # type: ignore[var-annotated]

    def score(self, images_BCHW: np.ndarray, prompts: list[str]) -> Any:
        assert images_BCHW.dtype == np.float32
        assert len(prompts) == len(images_BCHW)
        self.shapes.append(images_BCHW.shape)
        return self.answer(super().score(images_BCHW, prompts), images_BCHW)


def test_pictures_of_one_size_go_together_and_come_back_in_order() -> None:
    scorer = Noting()
    images = [grey(255), grey(0, 8, 2), grey(51), None, grey(102), grey(204, 8, 2)]
    scores, reasons = score_pictures(scorer, images, [None] * 6, batch=2)
    assert scores == pytest.approx([1.0, 0.0, 0.2, np.nan, 0.4, 0.8], nan_ok=True)
    assert reasons == [""] * 6  # that nothing was read is said by who read it
    assert scorer.shapes == [(2, 3, 4, 4), (1, 3, 4, 4), (2, 3, 8, 2)]


def test_one_bad_picture_takes_nobody_with_it() -> None:
    def fails_on_white(scores: np.ndarray, images: np.ndarray) -> np.ndarray:
        if images.max() == 1:
            raise OverflowError("white is too bright; sorry\n(<Image at 0x7f3a2b>)")
        return scores

    scorer = Noting(fails_on_white)
    scores, reasons = score_pictures(scorer, [grey(51), grey(255), grey(102)], ["a", "b", "c"], batch=8)
    assert scores == pytest.approx([0.2, np.nan, 0.4], nan_ok=True)
    assert reasons == ["", "raised OverflowError: white is too bright, sorry (<Image>)", ""]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (lambda scores, images: scores * np.inf, "not finite"),
        (lambda scores, images: scores + np.nan, "not finite"),
        (lambda scores, images: scores[:, None], "gave float32 of shape (1, 1) for 1 images"),
        (lambda scores, images: scores[1:], "gave float32 of shape (0,) for 1 images"),
    ],
)
def test_what_is_no_score_never_becomes_a_number(answer: Callable, reason: str) -> None:
    scores, reasons = score_pictures(Noting(answer), [grey(51), grey(102)], [None, None], batch=8)
    assert np.isnan(scores).all()
    assert reasons == [reason] * 2


def test_a_scorer_that_needs_a_prompt_is_not_asked_without() -> None:
    scorer = Noting()
    scorer.needs_prompt = True  # type: ignore[misc]
    scores, reasons = score_pictures(scorer, [grey(51), grey(102)], [None, "a cat"], batch=8)
    assert scores == pytest.approx([np.nan, 0.4], nan_ok=True)
    assert reasons == ["no prompt", ""]
    assert scorer.shapes == [(1, 3, 4, 4)]


def test_a_reason_fits_in_a_table() -> None:
    assert len(one_line("long " * 1000)) == MAX_REASON
