"""What every training stage shares: the data in memory, a clock-driven loop, moving averages and the log."""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rayalign.toy import shapes


class Log:
    """Prints lines and appends them to a file, each with the stage and its age in seconds."""

    def __init__(self, stage: str, path: Path | None = None) -> None:
        self.stage, self.path, self.start = stage, path, time.monotonic()

    def __call__(self, message: str) -> None:
        line = f"[{self.stage} {time.monotonic() - self.start:6.0f}s] {message}"
        print(line, flush=True, file=sys.stderr)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def pictures_and_captions(count: int, seed: int, two: float = 0.3) -> tuple[Tensor, list[str]]:
    """`count` random scenes: pictures as uint8 (count, 3, SIDE, SIDE), and their captions."""
    rng = random.Random(seed)
    pictures = torch.empty(count, 3, shapes.SIDE, shapes.SIDE, dtype=torch.uint8)
    captions = []
    for index in range(count):
        scene = shapes.random_scene(rng, two)
        pictures[index] = torch.from_numpy(shapes.draw_array(scene).astype(np.uint8)).permute(2, 0, 1)
        captions.append(shapes.caption(scene, rng))
    return pictures, captions


def to_unit(pictures: Tensor) -> Tensor:
    """uint8 pictures to float32 in -1..1, the range of a diffusers VAE."""
    return pictures.float() / 127.5 - 1


def batches(count: int, size: int, seed: int) -> Iterator[Tensor]:
    """Endless random batches of row numbers (size,), each epoch in a new order."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(count, generator=generator)
        yield from order[: count // size * size].split(size)


class Average:
    """Exponential moving average of a module's parameters, started slowly so that early noise fades."""

    def __init__(self, module: nn.Module, decay: float = 0.999) -> None:
        self.decay, self.steps = decay, 0
        self.values = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        self.steps += 1
        rate = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, p in module.named_parameters():
            self.values[name].lerp_(p.detach(), rate)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        for name, p in module.named_parameters():
            p.copy_(self.values[name])


@contextmanager
def averaged(module: nn.Module, average: Average) -> Iterator[None]:
    """Inside, `module` has its average weights; afterwards its own again."""
    own = {name: p.detach().clone() for name, p in module.named_parameters()}
    average.copy_to(module)
    yield
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.copy_(own[name])


def train_for(
    minutes: float,
    parameters: list[nn.Parameter],
    rate: float,
    loss_of_step: Callable[[int], tuple[Tensor, str]],
    log: Log,
    after_step: Callable[[int], None] | None = None,
    save: Callable[[], None] | None = None,
    log_every: int = 100,
    save_every_minutes: float = 3.0,
) -> int:
    """Run AdamW until the clock says stop; the cosine learning rate follows the clock, not a step count.

    `loss_of_step(step)` returns the loss and a short text for the log. Returns the number of steps.
    """
    optimiser = torch.optim.AdamW(parameters, lr=rate, weight_decay=1e-3, betas=(0.9, 0.98))
    start = last_save = time.monotonic()
    step, mean_loss = 0, float("nan")
    while (done := (time.monotonic() - start) / (60 * minutes)) < 1:
        scale = min(1.0, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * done))
        for group in optimiser.param_groups:
            group["lr"] = rate * max(scale, 0.01)
        loss, note = loss_of_step(step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        if after_step is not None:
            after_step(step)
        mean_loss = loss.item() if step == 0 else 0.98 * mean_loss + 0.02 * loss.item()
        if step % log_every == 0:
            log(f"step {step} loss {mean_loss:.4f} {note}")
        step += 1
        if save is not None and time.monotonic() - last_save > 60 * save_every_minutes:
            save()
            last_save = time.monotonic()
    log(f"step {step} loss {mean_loss:.4f} end of training")
    return step


def count_parameters(module: nn.Module) -> int:
    """How many numbers the module learns."""
    return sum(p.numel() for p in module.parameters())


def store_half(folder: Path) -> None:
    """Rewrite every safetensors file under `folder` in float16: half the size, and loaders cast back."""
    from safetensors.torch import load_file, save_file

    for path in sorted(folder.rglob("*.safetensors")):
        tensors = load_file(path)
        halves = {name: t.half() if t.dtype == torch.float32 else t for name, t in tensors.items()}
        save_file(halves, path, metadata={"format": "pt"})
        path.chmod(0o644)
