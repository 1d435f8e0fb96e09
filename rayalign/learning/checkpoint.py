"""One folder an iteration, written whole or not at all: weights and optimiser as safetensors, a checksummed manifest.

    checkpoints/iteration-000003/
      policy.safetensors  reference.safetensors  [previous.safetensors]  optimizer.safetensors
      state.json      iteration, config hash, state of the reference's rule, statistics of scores
      manifest.json   size and blake2b of every file; written last, so without it the folder does not count

Nothing random is stored: every draw of a run is a function of (seed, iteration, slot), see `records.derive_seed`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from rayalign.errors import CheckpointError

Arrays = dict[str, np.ndarray]
_ALWAYS = {"policy.safetensors", "reference.safetensors", "optimizer.safetensors", "state.json"}


@dataclass(frozen=True)
class Checkpoint:
    """The state after `iterations_done` iterations; `previous` is the version before, for max_lag 1."""

    iterations_done: int
    config_hash: str
    policy: Arrays
    reference: Arrays
    optimizer: Arrays
    previous: Arrays | None = None
    # reference: steps, copies, whether it is frozen; scores: statistics by scorer, of the previous version and of this
    rules: dict[str, Any] = field(default_factory=dict)


def save(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
    """Writes under a temporary name, then renames: a reader sees a whole checkpoint or none. Removes old ones."""
    final = folder / f"iteration-{checkpoint.iterations_done:06d}"
    partial = folder / f".{final.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    parts = {"policy": checkpoint.policy, "reference": checkpoint.reference, "optimizer": checkpoint.optimizer}
    if checkpoint.previous is not None:
        parts["previous"] = checkpoint.previous
    for name, arrays in parts.items():
        save_file({key: np.asarray(value, order="C") for key, value in arrays.items()}, partial / f"{name}.safetensors")
    state = {name: getattr(checkpoint, name) for name in ("iterations_done", "config_hash", "rules")}
    (partial / "state.json").write_text(json.dumps(state))
    manifest = {path.name: _fingerprint(path) for path in sorted(partial.iterdir())}
    (partial / "manifest.json").write_text(json.dumps(manifest, indent=1))
    for path in partial.iterdir():
        _flush(path)
    if final.exists():  # of a run that died between this save and publishing: the same state, written again
        shutil.rmtree(final)
    os.replace(partial, final)
    _flush(folder)
    for old in _folders(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def latest(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest undamaged checkpoint, and a sentence for each damaged one that was passed over."""
    problems: list[str] = []
    for candidate in reversed(_folders(folder)):
        problem = _problem(candidate)
        if problem is None:
            return candidate, problems
        problems.append(f"checkpoint {candidate} is damaged ({problem}); using the one before")
    return None, problems


def load(path: Path) -> Checkpoint:
    """Raises CheckpointError, saying what is wrong, if the folder is not a whole checkpoint."""
    problem = _problem(path)
    if problem is not None:
        raise CheckpointError(f"checkpoint {path} is damaged: {problem}")
    state = json.loads((path / "state.json").read_text())
    parts: dict[str, Any] = {file.stem: load_file(file) for file in path.glob("*.safetensors")}
    return Checkpoint(**state, **parts)


def iterations_done(path: Path | None) -> int:
    """How many iterations the checkpoint at `path` has behind it; 0 for None."""
    return 0 if path is None else int(json.loads((path / "state.json").read_text())["iterations_done"])


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("iteration-*") if path.is_dir())


def _problem(path: Path) -> str | None:
    try:
        manifest = json.loads((path / "manifest.json").read_text())
    except (OSError, ValueError) as error:
        return f"manifest.json: {error}"
    if not isinstance(manifest, dict) or not manifest.keys() >= _ALWAYS:
        return f"manifest.json does not name all of {sorted(_ALWAYS)}"
    for name, expected in manifest.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if _fingerprint(file) != expected:
            return f"{name} is not what was written (size or checksum)"
    return None


def _fingerprint(path: Path) -> dict[str, int | str]:
    data = path.read_bytes()
    return {"bytes": len(data), "blake2b": hashlib.blake2b(data, digest_size=16).hexdigest()}


def _flush(path: Path) -> None:
    """Onto the disk, so that a power cut after the rename finds the bytes there."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
