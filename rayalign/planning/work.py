"""How much an iteration does: trajectories, denoiser calls, decoded images, pairs, training calls."""

from __future__ import annotations

from dataclasses import dataclass

from rayalign.config import RunConfig, StepwisePairs


@dataclass(frozen=True)
class Work:
    """Of one iteration. Calls are of a whole ticket, or of a whole micro-batch."""

    trajectories: int
    pairs: int  # rows of the pair stream, dropped ones included
    calls_per_trajectory: int
    draw_calls: int  # denoiser calls of a ticket's samples together
    decode_calls: int  # the VAE on a ticket's samples together
    train_calls: int  # micro-batches, all workers together


def iteration_work(config: RunConfig) -> Work:
    """From the settings alone; the sampler's own count of calls is `pairs.calls_per_trajectory`."""
    rollout, pairs, num_steps = config.rollout, config.pairs, config.sampler.num_steps
    tickets = rollout.tickets_per_iteration
    # Whole trajectories are drawn once for each candidate; step-wise candidates share one.
    drawn = 1 if isinstance(pairs, StepwisePairs) else getattr(pairs, "num_candidates", 1)
    if pairs.kind == "dataset":
        drawn = 0
    calls = pairs.calls_per_trajectory(num_steps)
    decoded = 1 + (pairs.num_candidates * len(pairs.tuned_steps) if isinstance(pairs, StepwisePairs) else 0)
    per_ticket = -(-config.pairs_per_ticket // config.train.micro_batch) * getattr(pairs, "draws", 1)
    return Work(
        trajectories=tickets * rollout.samples_per_ticket * drawn,
        pairs=tickets * config.pairs_per_ticket,
        calls_per_trajectory=calls,
        draw_calls=tickets * calls * drawn,
        decode_calls=tickets * decoded * drawn,
        train_calls=tickets * per_ticket,
    )
