"""What an actor does first: fix its threads, and find the device Ray gave it."""

from __future__ import annotations

import torch

from rayalign.config import RunConfig


def prepare_actor(config: RunConfig) -> str:
    """Sets torch's threads (their number changes float sums, hence pairs) and returns "cuda" or "cpu"."""
    torch.set_num_threads(config.placement.cpu_threads)
    # Ray hides the GPUs that it has not given to this actor.
    return "cuda" if torch.cuda.is_available() else "cpu"
