"""SIGTERM (preemption, `ray job stop`) and Ctrl-C end a run in order: checkpoints are whole, no actor stays."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rayalign.errors import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside, the first of these signals raises KeyboardInterrupt in the main thread, which leaves as Interrupted.

    KeyboardInterrupt inside, since a waiting `ray.get` lets no other exception through. A second signal kills at once.
    In another thread than the main one nothing changes: Python delivers signals to the main thread alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    received = [int(signal.SIGINT)]

    def interrupt(number: int, _: Any) -> None:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        received[:] = [number]
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        yield
    except Interrupted:
        raise  # of one inside this one
    except KeyboardInterrupt as error:
        raise Interrupted(received[0]) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
