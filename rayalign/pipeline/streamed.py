"""Long work in a task of its own, each piece as it gets done, so that a wait ends where nothing does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray.exceptions import RayTaskError

from rayalign.errors import RayalignError, RunStopped


def streamed(what: str, timeout_s: float, work: Callable[..., Iterator[Any]], *arguments: Any) -> Iterator[Any]:
    """What `work(*arguments)` yields in a task, which keeps Ray Data's messages out of this process's output.

    Raises RunStopped, naming `what` was to be done, if the task fails or no piece comes for `timeout_s`; an error of
    ours in it as it is.
    """
    pieces = ray.remote(num_cpus=0, num_returns="streaming")(work).remote(*arguments)
    while True:
        ready, _ = ray.wait([pieces], timeout=timeout_s, fetch_local=False)
        if not ready:
            raise RunStopped(
                f"{what}: nothing was done for {timeout_s:g} s (stall_timeout_s): its actors or the scorers have no "
                "room (`ray status` says), or one piece takes longer, and then raise the setting"
            )
        try:
            yield ray.get(next(pieces))
        except StopIteration:
            return
        except RayTaskError as error:
            if isinstance(error.cause, RayalignError):
                raise error.cause from error
            raise RunStopped(f"{what} failed: {error.cause}") from error
