"""AdamW's state as flat named arrays and back, so that it can be stored without pickle."""

from __future__ import annotations

import numpy as np
import torch

_PARTS = ("step", "exp_avg", "exp_avg_sq")


def optimizer_arrays(optimizer: torch.optim.Optimizer) -> dict[str, np.ndarray]:
    """ "<parameter index>.<part>" -> float32. Empty before the first step."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{part}": np.array(torch.as_tensor(values[part]).float().cpu())
        for index, values in state.items()
        for part in _PARTS
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, arrays: dict[str, np.ndarray]) -> None:
    """Puts the arrays back; the learning rate and the like stay those of the run's settings."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in arrays.items():
        index, part = name.split(".", 1)
        state.setdefault(int(index), {})[part] = torch.from_numpy(np.array(value))
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
