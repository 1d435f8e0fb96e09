"""The last policy that a measurement found good: one file beside the checkpoints, of which only the newest stay."""

from __future__ import annotations

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from rayalign.errors import CheckpointError
from rayalign.learning.checkpoint_place import Place

FILE = "good_policy.safetensors"
Arrays = dict[str, np.ndarray]


def save_good(place: Place, version: int, policy: Arrays) -> None:
    """Replaces the one before, whole or not at all."""
    arrays = {name: np.asarray(value, order="C") for name, value in policy.items()}
    with place.scratch() as scratch:
        save_file(arrays, scratch / FILE, metadata={"version": str(version)})
        place.put(scratch / FILE, FILE)


def good_version(place: Place) -> int | None:
    """The version that is kept; None if there is none."""
    if FILE not in place.names():
        return None
    with place.local(FILE) as path, safe_open(path, "np") as file:
        return int(file.metadata()["version"])


def load_good(place: Place, version: int) -> Arrays:
    """Raises CheckpointError if it is missing, or of another version."""
    kept = "no policy"
    if FILE in place.names():
        with place.local(FILE) as path, safe_open(path, "np") as file:  # once: a bucket's is fetched each time
            found = int(file.metadata()["version"])
            if found == version:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            kept = f"policy version {found}"
    raise CheckpointError(f"{place.name}/{FILE} holds {kept}, not version {version}, the one to go back to")
