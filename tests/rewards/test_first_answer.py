"""A user's scorer is refused at its first answer if no run could use it."""

from __future__ import annotations

import numpy as np
import pytest

from rayalign.errors import ScoringError
from rayalign.rewards.first_answer import check_first_answer


class Answers:
    """Gives the answers it was made with, one a call; raises those that are errors."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)

    def score(self, images_BCHW: np.ndarray, prompts: list[str]) -> object:
        assert images_BCHW.shape == (2, 3, 64, 64)
        assert len(prompts) == 2
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(
    "answers",
    [
        [np.zeros(2, dtype=np.float32)],
        [[0.5, 0.25]],  # a run takes it, though the conformance check is stricter
        [np.array([np.nan, 1.0])],  # a failure that is counted, no wrong form
        [TimeoutError("busy"), np.zeros(2)],  # asks the network, which was slow once
    ],
)
def test_a_first_answer_that_a_run_can_use(answers: list) -> None:
    check_first_answer("own_module:Answers", Answers(*answers))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (np.zeros((2, 1), dtype=np.float32), r"gave shape \(2, 1\) for 2 images .* of shape \(2,\).*reshape\(-1\)"),
        (np.zeros(3, dtype=np.float32), r"gave shape \(3,\) for 2 images of 64 x 64; give a float32 numpy array"),
        (0.5, "gave a float for 2 images"),
        (None, "gave a NoneType"),
        (["high", "low"], "gave a list"),
        (ZeroDivisionError("by zero"), "raised ZeroDivisionError on 2 images of 64 x 64: by zero"),
    ],
)
def test_a_first_answer_that_no_run_can_use(answer: object, said: str) -> None:
    with pytest.raises(ScoringError, match=said) as caught:
        check_first_answer("own_module:Answers", Answers(answer, answer))
    assert str(caught.value).startswith("Answers.score ")
    assert "`rayalign scorers check own_module:Answers`" in str(caught.value)
