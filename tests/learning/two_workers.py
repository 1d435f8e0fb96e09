"""Two train workers as Ray Train has them: two processes that exchange by gloo, each with its own Accelerate."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed
import torch.multiprocessing

WORKERS = 2


def run_two(folder: Path, job: Callable[..., Any], *args: Any) -> list[Any]:
    """[job(0, *args), job(1, *args)], each from a process of its own. `job` is a function of a module."""
    torch.multiprocessing.spawn(_worker, (str(folder), job, args), nprocs=WORKERS)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(WORKERS)]


def _worker(rank: int, folder: str, job: Callable[..., Any], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    # What Ray Train sets and Accelerate reads. They meet at a file, so that no port has to be free.
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"}
    os.environ |= {"WORLD_SIZE": str(WORKERS), "LOCAL_WORLD_SIZE": str(WORKERS)}
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=WORKERS)
    torch.save(job(rank, *args), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()
