"""The first answer of a user's own scorer, asked for before anything depends on it."""

from __future__ import annotations

from typing import Any

import numpy as np

from rayalign.errors import ScoringError
from rayalign.rewards.answer_form import form_problem
from rayalign.rewards.mixture import check_answer

TRIES = 2  # a scorer that asks the network may fail once
NUM_IMAGES, SIZE = 2, 64


def check_first_answer(name: str, scorer: Any) -> None:
    """Asks a user's scorer once, for grey noise, so that an answer that no run can use stops it before it begins.

    The rest of what a scorer owes is `rayalign scorers check`'s to try: that takes many calls.

    Raises:
        ScoringError: it raised each time, or gave no array of one number an image; names class, form got, form wanted.
    """
    images = np.random.default_rng(0).uniform(0.4, 0.6, (NUM_IMAGES, 3, SIZE, SIZE)).astype(np.float32)
    what, method = f"{NUM_IMAGES} images of {SIZE} x {SIZE}", f"{type(scorer).__name__}.score"
    more = f"`rayalign scorers check {name}` tries all that a scorer must do"
    problem = ""
    for _ in range(TRIES):
        try:
            answer = scorer.score(images.copy(), ["a red circle", "a blue square"])
        except Exception as error:  # whatever a user's scorer raises
            problem = f"{method} raised {type(error).__name__} on {what}: {error}"
            continue
        try:
            check_answer(answer, NUM_IMAGES)
            return
        except (ScoringError, TypeError, ValueError) as error:
            said = form_problem(method, answer, (NUM_IMAGES,), what) or f"{method} {error}"
            raise ScoringError(f"{said}. {more}") from error
    raise ScoringError(f"{problem}. {more}")
