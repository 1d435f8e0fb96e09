"""What an actor asks of where it is: its device and threads, memory, and whether its node is about to go."""

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


def node_leaves() -> bool:
    """Whether the node of one of the workers is about to go (a drain notice); the same answer on every worker."""
    import ray.train  # of a train worker alone: other actors need not wait for it

    ask = getattr(ray.train, "get_preemption_info", None)  # Ray 2.60 has it
    return ask is not None and ask() is not None
