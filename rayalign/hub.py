"""Whether the hub may be asked at all. Its client tries a silent one five times a file, for half a minute or more."""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request
from functools import lru_cache

HUB_S = 3.0
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
YES = ("1", "true", "yes", "on")


def offline_variable() -> str:
    """The variable by which the user has turned the hub off; empty where none does."""
    return next((name for name in OFFLINE if os.environ.get(name, "").lower() in YES), "")


def hub_address() -> str:
    return os.environ.get("HF_ENDPOINT") or "https://huggingface.co"


@lru_cache
def hub_silence() -> str:
    """Why only the local cache can be used; empty where the hub answers. Asked once a process."""
    if variable := offline_variable():
        return f"{variable} is set"
    said = silence(hub_address())
    return f"{hub_address()} does not answer: {said}" if said else ""


def silence(address: str, timeout_s: float = HUB_S) -> str:
    """Why `address` does not answer; empty where it does. In a thread: no timeout covers a name server's silence."""
    said = [f"nothing for {timeout_s:g} s"]

    def ask() -> None:
        try:
            with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=timeout_s):
                said[0] = ""
        except urllib.error.HTTPError:  # an answer too
            said[0] = ""
        except (OSError, ValueError) as error:
            said[0] = str(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(timeout_s)
    return said[0]
