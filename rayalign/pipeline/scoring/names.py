"""What a run's reward services are called on a cluster: functions of names alone, so that clients find them."""

from __future__ import annotations

import hashlib
import re

APP_PREFIX = "rayalign-score"


def app_name(run: str, scorer: str = "") -> str:
    """Serve's name of a scorer's application.

    Without a scorer: what the names of all applications of the run begin with, and of no other run.
    """
    return f"{APP_PREFIX}.{_slug(run)}.{_slug(scorer)}"


def store_name(run: str) -> str:
    """Ray's name of the run's store of texts."""
    return f"{app_name(run)}texts"


def store_beside(app: str) -> str:
    """The same, from the name of one of the run's applications."""
    return f"{app.rpartition('.')[0]}.texts"


def _slug(name: str) -> str:
    slug = re.sub(r"[^A-Za-z0-9-]+", "-", name)
    return slug if slug == name else f"{slug}-{hashlib.blake2b(name.encode(), digest_size=3).hexdigest()}"
