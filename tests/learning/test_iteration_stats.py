from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rayalign.errors import RunStopped
from rayalign.learning.iteration_stats import IterationStats
from rayalign.models.text_to_image import TextToImage
from rayalign.rewards.statistics import moments_of
from tests.learning.tables import pairs
from tests.toys import model_of


@pytest.fixture(scope="module")
def stub() -> TextToImage:
    return model_of("stub")


def ticket(stub: TextToImage, slot: int, finals: list[float], steps: int = 2, **head: Any) -> pa.Table:
    """`steps` pairs of each trajectory; each trajectory's final reward stands on all its rows, as scorer value -x."""
    times = {"ticket_rollout_s": 2.0, "ticket_scoring_s": 0.5, "ticket_queued_s": 0.25}
    head = {"iteration": 4, "policy_version": 4} | times | head
    size = len(finals) * steps
    return pairs(
        stub,
        slot,
        ("kept",) * size,
        slot=[slot] * size,
        sample=list(range(len(finals))) * steps,
        final_reward=finals * steps,
        final_scores=[[-value] for value in finals] * steps,
        **{name: value if isinstance(value, list) else [value] * size for name, value in head.items()},
    )


def test_rewards_by_hand(stub: TextToImage) -> None:
    stats = IterationStats(2, ["stub"])
    tables = [ticket(stub, 0, [1.0, 2.0]), ticket(stub, 1, [3.0, 6.0], ticket_rollout_s=3.0)]
    for table in tables:
        stats.add(table, 4, trained_version=4)
    stats.check_complete(4)
    stats.waiting_s = 0.25
    record = stats.record(4, {"loss": 0.5}, {"pairs_kept": 8}, {"training": 1.0})
    # Mean of 1, 2, 3, 6 is 3. Mean of squares 12.5, variance 3.5, half width 1.96 sqrt(3.5 / 4) = 1.8334.
    half = 1.96 * math.sqrt(3.5 / 4)
    expected = {"loss": 0.5, "reward": 3.0, "reward_low": 3 - half, "reward_high": 3 + half, "reward/stub": -3.0}
    assert record.metrics == pytest.approx(expected)
    assert record.counts == {
        "pairs_kept": 8,
        "trajectories": 4,
        "denoiser_calls": 100,
        "pairs_guided": 0,
        "pair_bytes": sum(table.nbytes for table in tables),
    }
    seconds = {"training": 1.0, "rollout": 5.0, "scoring": 1.0, "queued": 0.5, "waiting": 0.25}
    assert record.seconds == pytest.approx(seconds)
    assert (record.iteration, record.version, record.lag_max) == (4, 5, 0)


def test_a_failed_score_stands_in_no_mean(stub: TextToImage) -> None:
    stats = IterationStats(1, ["stub"])
    stats.add(ticket(stub, 0, [math.nan, 2.0, 4.0]), 4, 4)
    metrics = stats.record(4, {}, {}, {}).metrics
    # 2 and 4: mean 3, variance 1, half width 1.96 sqrt(1 / 2).
    assert metrics["reward"] == pytest.approx(3.0)
    assert metrics["reward_high"] - metrics["reward"] == pytest.approx(1.96 * math.sqrt(1 / 2))
    assert metrics["reward/stub"] == pytest.approx(-3.0)


def test_guided_pairs_and_whole_trajectories_are_counted(stub: TextToImage) -> None:
    stats = IterationStats(1, ["stub"])
    table = ticket(stub, 0, [1.0, 2.0], guided=[True, False, True, True], trajectories=[2] * 4)
    stats.add(table, 4, 4)
    counts = stats.record(4, {}, {}, {}).counts
    # Two samples of two trajectories each; three of the four pairs moved.
    assert (counts["trajectories"], counts["pairs_guided"]) == (4, 3)


def test_the_largest_lag_is_reported(stub: TextToImage) -> None:
    stats = IterationStats(2, ["stub"])
    stats.add(ticket(stub, 0, [1.0], policy_version=3), 4, trained_version=4)
    stats.add(ticket(stub, 1, [1.0]), 4, trained_version=4)
    assert stats.record(4, {}, {}, {}).lag_max == 1


def test_a_ticket_s_scores_stay_in_ticket_order_whoever_took_it(stub: TextToImage) -> None:
    scores = [moments_of(np.array([slot, 2.0 * slot])) for slot in range(4)]
    tables = [ticket(stub, slot, [1.0], ticket_scores=[scores[slot].packed()] * 2) for slot in range(4)]
    workers = [IterationStats(4, ["stub"]) for _ in range(2)]
    for slot in (3, 0, 2, 1):
        workers[slot % 2].add(tables[slot], 4, 4)
    packed = np.stack([worker.packed() for worker in workers])
    for worker in workers:
        worker.merge(packed)
        assert worker.moments() == [{"stub": one} for one in scores]


def test_a_scorer_that_always_answers_the_same_is_noted(stub: TextToImage) -> None:
    noted = []
    for scores in (np.full(6, 0.5), np.array([0.5] * 5 + [0.6])):
        stats = IterationStats(2, ["stub"])
        for slot in range(2):
            tally = moments_of(scores, range(slot * 5, slot * 5 + 6)).packed()
            stats.add(ticket(stub, slot, [1.0], ticket_scores=[tally] * 2), 4, 4)
        noted.append(stats.record(4, {}, {}, {}).extra)
    # Pictures of buckets 0 to 5 and 5 to 10: 12 scores of 11 at least.
    assert noted == [{"constant": {"stub": [0.5, 12.0, 11]}}, {}]


def test_missing_and_doubled_tickets_stop_the_run(stub: TextToImage) -> None:
    stats = IterationStats(4, ["stub"])
    for slot in (0, 2, 2):
        stats.add(ticket(stub, slot, [1.0]), 4, 4)
    with pytest.raises(RunStopped, match=r"iteration 4: tickets \[1, 3\] are missing and \[2\] came twice"):
        stats.check_complete(4)


def test_a_ticket_of_another_iteration_stops_the_run(stub: TextToImage) -> None:
    with pytest.raises(RunStopped, match="iteration 5 was handed a ticket of iteration 4"):
        IterationStats(1, ["stub"]).add(ticket(stub, 0, [1.0]), 5, 5)


def test_two_workers_merge_to_what_one_would_have_seen(stub: TextToImage) -> None:
    tables = [ticket(stub, slot, [slot + 1.0, 2.0 * slot], policy_version=4 - slot % 2) for slot in range(4)]
    one = IterationStats(4, ["stub"])
    for table in tables:
        one.add(table, 4, 4)
    one.waiting_s = 3.0
    workers = [IterationStats(4, ["stub"]) for _ in range(2)]
    for slot, table in enumerate(tables):
        workers[slot % 2].add(table, 4, 4)
    workers[0].waiting_s, workers[1].waiting_s = 1.0, 3.0  # side by side, so the longest counts
    packed = np.stack([worker.packed() for worker in workers])
    for worker in workers:
        worker.merge(packed)
        worker.check_complete(4)
        assert worker.record(4, {}, {}, {}) == one.record(4, {}, {}, {})
