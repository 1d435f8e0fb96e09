"""What a checkpoint holds: all that a run needs to go on as if nothing had happened. Where it goes: `checkpoint_store`.

    policy.safetensors     reference (a part that checkpoints may share)     [previous.safetensors]
    [ema.safetensors]
    optimizer.safetensors  history.jsonl (a line an iteration)               state.json (settings, the rules' states)

Nothing random is stored: every draw of a run is a function of (seed, iteration, slot), see `records.derive_seed`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from rayalign.learning.manifest import Part

Arrays = dict[str, np.ndarray]
STATE, HISTORY = "state.json", "history.jsonl"
REFERENCE = "reference.safetensors"
NEEDED = frozenset({"policy.safetensors", REFERENCE, "optimizer.safetensors", STATE, HISTORY})


@dataclass(frozen=True)
class Checkpoint:
    """The state after `iterations_done` iterations."""

    iterations_done: int
    config: dict[str, Any]  # all settings, as config.yaml has them
    policy: Arrays
    # Arrays, or the part that an earlier checkpoint stored: a reference that did not change is not written again.
    reference: Arrays | Part
    optimizer: Arrays
    previous: Arrays | None = None  # the policy version before, for max_lag 1
    ema: Arrays | None = None  # `PolicyAverage.state`, where train.ema_decay is set
    rules: dict[str, Any] = field(default_factory=dict)  # reference: steps, copies, freeze; scores: statistics
    history: str = ""  # lines of `evaluation.history`, one an iteration from the first on
    held_out: float | None = None  # what the best checkpoint is chosen by, where this version was measured
    held_out_by: str = ""


_ABOUT = ("iterations_done", "config", "rules", "held_out", "held_out_by")


def write_files(state: Checkpoint, folder: Path) -> Iterator[str]:
    """Writes the checkpoint's files one by one; yields the name of each once it is there."""
    arrays = {"policy": state.policy, "previous": state.previous, "ema": state.ema, "optimizer": state.optimizer}
    arrays |= {} if isinstance(state.reference, Part) else {"reference": state.reference}
    for name, values in arrays.items():
        if values is not None:
            file = f"{name}.safetensors"
            save_file({key: np.asarray(value, order="C") for key, value in values.items()}, folder / file)
            yield file
    about = {name: getattr(state, name) for name in _ABOUT}
    (folder / STATE).write_text(json.dumps(about), encoding="utf-8")
    yield STATE
    (folder / HISTORY).write_text(state.history, encoding="utf-8")
    yield HISTORY


def read_files(files: dict[str, Path]) -> Checkpoint:
    """The checkpoint of files by name."""
    arrays: dict[str, Any] = {
        name.removesuffix(".safetensors"): load_file(path)
        for name, path in files.items()
        if name.endswith(".safetensors")
    }
    about = json.loads(files[STATE].read_text(encoding="utf-8"))
    return Checkpoint(history=files[HISTORY].read_text(encoding="utf-8"), **about, **arrays)
