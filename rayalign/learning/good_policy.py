"""The last policy that a measurement found good: one file beside the checkpoints, of which only the newest stay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from rayalign.errors import CheckpointError
from rayalign.whole_files import replacing

FILE = "good_policy.safetensors"
Arrays = dict[str, np.ndarray]


def save_good(folder: Path, version: int, policy: Arrays) -> None:
    """Replaces the one before in one move."""
    arrays = {name: np.asarray(value, order="C") for name, value in policy.items()}
    with replacing(folder / FILE) as partial:
        save_file(arrays, partial, metadata={"version": str(version)})


def good_version(folder: Path) -> int | None:
    """The version that is kept; None if there is none."""
    path = folder / FILE
    if not path.exists():
        return None
    with safe_open(path, "np") as file:
        return int(file.metadata()["version"])


def load_good(folder: Path, version: int) -> Arrays:
    """Raises CheckpointError if it is missing, or of another version."""
    path, found = folder / FILE, good_version(folder)
    if found != version:
        raise CheckpointError(f"{path} holds policy version {found}, not {version}, the one to go back to")
    with safe_open(path, "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
