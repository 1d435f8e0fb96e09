import asyncio

import numpy as np

from rayalign.rewards.local import LocalScoreFn
from rayalign.rewards.stub import StubScorer
from rayalign.rewards.tally import ScoreTally

GREYS = np.stack([np.full((3, 4, 4), value, dtype=np.float32) for value in (0.0, 0.5, 0.5, 1.0)])


def test_a_ticket_s_scores_are_summed_and_passed_on() -> None:
    local = LocalScoreFn({"stub": (StubScorer(), 2.0)})
    tally = ScoreTally(local)
    for call in (GREYS[:2], GREYS[2:]):
        scores = asyncio.run(tally(call, ["", ""]))
        assert scores.total_B.tolist() == (2 * call.mean((1, 2, 3))).tolist()
    moments = tally.moments["stub"]
    # 0, 0.5, 0.5, 1: mean 0.5, squared deviations 0.25 + 0.25; three different pictures.
    assert (moments.count, moments.mean, moments.m2, moments.different) == (4, 0.5, 0.5, 3)
    scored, grads = asyncio.run(tally.score_and_grad(GREYS[:2], ["", ""]))
    assert scored.total_B.tolist() == [0.0, 1.0]
    assert grads.shape == (2, 3, 4, 4)
    assert tally.moments["stub"] == moments  # pictures that were scored before


def test_scores_that_failed_are_no_answers() -> None:
    tally = ScoreTally(LocalScoreFn({"stub": (StubScorer(fail="nan"), 1.0)}))
    asyncio.run(tally(GREYS, [""] * 4))
    assert (tally.moments["stub"].count, tally.moments["stub"].different) == (3, 2)
