"""What jobs and the `rayalign` command do around their work. Light: `--help` imports it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from rayalign.errors import ConfigError, Interrupted, RayalignError

VERBOSE = "RAYALIGN_VERBOSE"  # set, it shows where the operating system refused something


def settle_ray() -> None:
    """Before Ray is imported: an embedded one warns at every start unless this is explicit."""
    if not os.environ.get("RAY_ADDRESS"):
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def exit_code(work: Callable[[], int | None], stopped: str) -> int:
    """The code that `work` answers (none: 0), or that of what it raised, which is said in a line and not a traceback.

    2 is a wrong setting, 1 any other error of ours or of the operating system. `stopped` is said after a Ctrl-C.
    """
    try:
        return work() or 0
    except ConfigError as error:
        return _complain(error, 2)
    except RayalignError as error:
        return _complain(error, 1)
    except OSError as error:  # a disk that is full or gone, a name that no file can have
        if os.environ.get(VERBOSE):
            raise
        return _complain(f"{error}; {VERBOSE}=1 shows where", 1)
    except Interrupted as stop:
        return stop.exit_code  # where it stopped was said already
    except KeyboardInterrupt:
        return _complain(stopped, 130)


def _complain(error: object, code: int) -> int:
    print(f"error: {error}", file=sys.stderr, flush=True)
    return code
