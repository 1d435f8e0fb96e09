"""A deadline for calls that have none: Ray Serve's ask its controller, and wait for ever where that one is silent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import TypeVar

from rayalign.errors import RunStopped

AnswerT = TypeVar("AnswerT")


class NoAnswer(RunStopped):
    """Something was waited for as long as it may take."""


def within(timeout_s: float, waiting: str, call: Callable[[], AnswerT]) -> AnswerT:
    """What `call` returns or raises, from a thread of its own, which a silent one keeps.

    Args:
        waiting: who waits for what, for the message: "the driver waits for ...".

    Raises NoAnswer, saying `waiting` and how long, where nothing came in `timeout_s`.
    """
    answer = in_thread(call)
    # Not `answer.result(timeout_s)`: its TimeoutError could not be told from one that `call` raised.
    if not wait([answer], timeout_s).done:
        raise NoAnswer(f"{waiting}, and nothing came for {timeout_s:g} s; what it waits for is stuck or out of reach")
    return answer.result()


def in_thread(call: Callable[[], AnswerT]) -> Future[AnswerT]:
    """Begun at once. A pool's threads would not do: the process could not end while one of them is stuck."""
    answer: Future[AnswerT] = Future()

    def work() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:  # goes to whoever waits
            answer.set_exception(error)

    threading.Thread(target=work, name="deadline", daemon=True).start()
    return answer
