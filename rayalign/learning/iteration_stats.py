"""What an iteration's pairs say of themselves: which tickets came, their rewards, lag, calls and times."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rayalign.errors import RunStopped
from rayalign.records import MOMENTS, IterationRecord
from rayalign.rewards.statistics import NO_SCORES, Moments, from_plain, merge_by_scorer


class IterationStats:
    """Sums over the tickets one worker took; `merge` turns them into those of all workers.

    Rewards are of finished images, one a trajectory. A failed score is NaN and stands in no mean.
    """

    def __init__(self, tickets_per_iteration: int, scorers: list[str]) -> None:
        self.scorers = scorers
        self.seen = np.zeros(tickets_per_iteration)  # times each slot was consumed
        # Sum, sum of squares and count of the combined reward, then of each scorer.
        self.rewards = np.zeros((1 + len(scorers), 3))
        self._moments = np.zeros((tickets_per_iteration, len(scorers) * MOMENTS))  # by slot, of all that was scored
        self.rollout_s = self.scoring_s = self.queued_s = self.waiting_s = 0.0
        self.trajectories = self.denoiser_calls = self.guided = 0.0
        self.lag_max = 0.0
        self.bytes_moved = 0.0

    def add(self, table: pa.Table, iteration: int, trained_version: int) -> None:
        """Raises RunStopped if the ticket is of another iteration: the stream is out of order."""
        head = {name: table[name][0].as_py() for name in _WHOLE_TICKET}
        if head["iteration"] != iteration:
            raise RunStopped(f"iteration {iteration} was handed a ticket of iteration {head['iteration']}")
        self.seen[head["slot"]] += 1
        self._moments[head["slot"]] = table["ticket_scores"][0].as_py()
        self.lag_max = max(self.lag_max, trained_version - head["policy_version"])
        self.rollout_s += head["ticket_rollout_s"]
        self.scoring_s += head["ticket_scoring_s"]
        self.queued_s += head["ticket_queued_s"]
        self.bytes_moved += table.nbytes
        samples = np.unique(table["sample"].to_numpy(), return_index=True)[1]
        self.trajectories += float(table["trajectories"].to_numpy()[samples].sum())
        self.guided += float(pc.sum(table["guided"].cast("int32")).as_py())
        self.denoiser_calls += float(table["denoiser_calls"].to_numpy()[samples].sum())
        finals = np.array(table["final_scores"].take(pa.array(samples)).to_pylist(), dtype=np.float64)
        combined = table["final_reward"].to_numpy()[samples].astype(np.float64)
        for row, values in enumerate([combined, *finals.T]):
            usable = values[np.isfinite(values)]
            self.rewards[row] += (usable.sum(), (usable**2).sum(), len(usable))

    def packed(self) -> np.ndarray:
        """float64 (n,), so that one gather moves it all."""
        scalars = [getattr(self, name) for name in _SCALARS]
        return np.concatenate([self.seen, self.rewards.reshape(-1), self._moments.reshape(-1), scalars])

    def merge(self, packed_by_worker: np.ndarray) -> None:
        """(W, n) of all workers: sums, but the largest lag and the longest wait (workers wait side by side)."""
        total = packed_by_worker.sum(0)
        ends = np.cumsum([self.seen.size, self.rewards.size, self._moments.size])
        self.seen, rewards, moments, _ = np.split(total, ends)
        self.rewards = rewards.reshape(self.rewards.shape)
        self._moments = moments.reshape(self._moments.shape)  # a slot is one worker's, and zeros of all others
        for offset, name in enumerate(_SCALARS, start=-len(_SCALARS)):
            column = packed_by_worker[:, offset]
            setattr(self, name, float(column.max() if name in _LARGEST else column.sum()))

    def moments(self) -> list[dict[str, Moments]]:
        """Of all that the iteration had scored, by ticket, in ticket order."""
        by_slot = self._moments.reshape(len(self.seen), len(self.scorers), MOMENTS).tolist()
        return [from_plain(dict(zip(self.scorers, row, strict=True))) for row in by_slot]

    def check_complete(self, iteration: int) -> None:
        """Raises RunStopped unless every ticket of the iteration was consumed exactly once."""
        missing, doubled = np.flatnonzero(self.seen == 0), np.flatnonzero(self.seen > 1)
        if len(missing) or len(doubled):
            raise RunStopped(
                f"iteration {iteration}: tickets {missing.tolist()} are missing and {doubled.tolist()} came twice"
            )

    def record(
        self, iteration: int, metrics: dict[str, float], counts: dict[str, int], seconds: dict[str, float]
    ) -> IterationRecord:
        """Rewards with a 95% interval of the mean (normal approximation over trajectories)."""
        total, squares, count = self.rewards.T
        count = np.where(count > 0, count, np.nan)  # no usable score: no mean, rather than 0
        mean = total / count
        half = 1.96 * np.sqrt(np.maximum(squares / count - mean**2, 0) / count)
        rewards = {"reward": mean[0], "reward_low": mean[0] - half[0], "reward_high": mean[0] + half[0]}
        rewards |= {f"reward/{name}": value for name, value in zip(self.scorers, mean[1:], strict=True)}
        counts = counts | {
            "trajectories": round(self.trajectories),
            "denoiser_calls": round(self.denoiser_calls),
            "pairs_guided": round(self.guided),
            "pair_bytes": round(self.bytes_moved),
        }
        seconds = seconds | {name: getattr(self, f"{name}_s") for name in ("rollout", "scoring", "queued", "waiting")}
        rewards = {name: float(value) for name, value in rewards.items()}
        whole = merge_by_scorer(NO_SCORES, self.moments())
        constant = {name: [one.mean, one.count, one.different] for name, one in whole.items() if one.says_nothing}
        extra = {"constant": constant} if constant else {}
        return IterationRecord(iteration, iteration + 1, metrics | rewards, counts, seconds, round(self.lag_max), extra)


_WHOLE_TICKET = ("iteration", "slot", "policy_version", "ticket_rollout_s", "ticket_scoring_s", "ticket_queued_s")
_SCALARS = (
    *("rollout_s", "scoring_s", "queued_s", "waiting_s"),
    *("trajectories", "denoiser_calls", "guided", "lag_max", "bytes_moved"),
)
_LARGEST = ("lag_max", "waiting_s")
