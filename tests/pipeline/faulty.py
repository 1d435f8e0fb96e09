"""A scorer that does to a call what the prompts in it say, as a broken one would, and writes down each call."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import ClassVar

import numpy as np

NAME = "tests.pipeline.faulty:FaultyScorer"


class FaultyScorer:
    """Mean pixel value, but for prompts that are a fault's name.

    `die` ends the process at the first such call, `dies` at every one; `slow` answers after `seconds`; `raise` raises;
    `short` leaves a score out; `nan` and `inf` are such scores; `flat` scores 0.5 whatever the image.

    Args:
        folder: each call appends a line "<time> <prompt>" to `calls.txt` in it.
    """

    differentiable: ClassVar[bool] = False
    needs_prompt: ClassVar[bool] = True
    unit: ClassVar[str] = "mean pixel value, 0 to 1"

    def __init__(self, folder: str, seconds: float = 0.0) -> None:
        self.folder, self.seconds = Path(folder), seconds

    def score(self, images_BCHW: np.ndarray, prompts: list[str]) -> np.ndarray:
        with (self.folder / "calls.txt").open("a") as calls:
            calls.write("".join(f"{time.time()} {prompt}\n" for prompt in dict.fromkeys(prompts)))
        if "dies" in prompts or ("die" in prompts and self._first_time()):
            os._exit(1)
        if "slow" in prompts:
            time.sleep(self.seconds)
        if "raise" in prompts:
            raise RuntimeError("asked to raise")
        scores_B = images_BCHW.astype(np.float64).mean(axis=(1, 2, 3)).astype(np.float32)
        for row, prompt in enumerate(prompts):
            if prompt in ("nan", "inf"):
                scores_B[row] = float(prompt)
            if prompt == "flat":
                scores_B[row] = 0.5
        return scores_B[1:] if "short" in prompts else scores_B

    def _first_time(self) -> bool:
        try:
            (self.folder / "died").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True


def calls_of(folder: Path, prompt: str) -> list[float]:
    """When the calls with `prompt` came, in seconds."""
    lines = [line.split(" ", 1) for line in (folder / "calls.txt").read_text().splitlines()]
    return sorted(float(when) for when, what in lines if what == prompt)
