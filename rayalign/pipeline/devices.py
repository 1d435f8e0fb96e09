"""What an actor does first: fix its threads, and find the device Ray gave it."""

from __future__ import annotations

import torch

from rayalign.config import RunConfig


def prepare_actor(config: RunConfig) -> str:
    """`prepare_device` by a run's settings."""
    return prepare_device(config.placement.cpu_threads)


def prepare_device(cpu_threads: int) -> str:
    """Sets torch's threads (their number changes float sums, hence pairs) and returns "cuda" or "cpu"."""
    torch.set_num_threads(cpu_threads)
    # Ray hides the GPUs that it has not given to this actor.
    return "cuda" if torch.cuda.is_available() else "cpu"


def peak_memory(device: torch.device) -> dict[str, float]:
    """This process's peak GPU memory so far, in 10^9 bytes, as a metric; nothing on a CPU."""
    if device.type != "cuda":
        return {}
    return {"memory/train_gpu_gb": torch.cuda.max_memory_allocated(device) / 1e9}
