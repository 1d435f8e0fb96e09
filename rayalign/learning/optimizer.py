"""The policy's optimiser, and its state as flat named arrays and back, so that it can be stored without pickle."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import nn

from rayalign.config import TrainConfig


def make_optimizer(parameters: Iterable[nn.Parameter], config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW, or Adafactor with a set learning rate and without momentum, as Diffusion-DPO tunes the whole SDXL."""
    if config.optimizer == "adafactor":
        from transformers.optimization import Adafactor

        return Adafactor(
            parameters, lr=config.lr, weight_decay=config.weight_decay, scale_parameter=False, relative_step=False
        )
    return torch.optim.AdamW(
        parameters,
        lr=config.lr,
        betas=config.betas,
        eps=config.adam_eps,
        weight_decay=config.weight_decay,
        foreach=False,
    )


def state_bytes(parameters: Iterable[torch.Tensor], config: TrainConfig) -> int:
    """What the optimiser keeps beside weights and gradients, float32."""
    if config.optimizer == "adamw":
        return sum(8 * value.numel() for value in parameters)
    # A mean for each row and each column of the last two dimensions: little of a matrix, two thirds of a convolution.
    return sum(
        4 * (value.numel() // value.shape[-1] + value.numel() // value.shape[-2] if value.dim() > 1 else value.numel())
        for value in parameters
    )


def optimizer_arrays(optimizer: torch.optim.Optimizer) -> dict[str, np.ndarray]:
    """ "<parameter index>.<part>" -> float32. Empty before the first step."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{part}": np.array(torch.as_tensor(value).float().cpu())
        for index, values in state.items()
        for part, value in values.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, arrays: dict[str, np.ndarray]) -> None:
    """Puts the arrays back; the learning rate and the like stay those of the run's settings."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in arrays.items():
        index, part = name.split(".", 1)
        state.setdefault(int(index), {})[part] = torch.from_numpy(np.array(value))
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
