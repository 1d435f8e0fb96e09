"""Scorers of a user's, for replicas in other processes: what these did is told by files."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np


class LongestPrompt:
    """The prompt's length, whatever the image.

    Args:
        folder: gets a file `text-<process>-<random>` with the prompt for each text encoded, and one
            `score-<process>-<random>` for each scoring.
        seconds: that a text takes.
    """

    differentiable: ClassVar[bool] = False
    needs_prompt: ClassVar[bool] = True
    unit: ClassVar[str] = "letters"

    def __init__(self, folder: str, seconds: float = 0.0) -> None:
        self.folder, self.seconds = Path(folder), seconds
        self.num_text_runs = 0
        self.texts: dict[str, np.ndarray] = {}

    def missing_texts(self, prompts: Sequence[str]) -> list[str]:
        return [prompt for prompt in dict.fromkeys(prompts) if prompt not in self.texts]

    def encode_text(self, prompt: str) -> np.ndarray:
        time.sleep(self.seconds)
        if prompt == "bad":
            raise ValueError("bad prompt")
        self.num_text_runs += 1
        self._leave("text", prompt)
        self.texts[prompt] = np.array([len(prompt)], dtype=np.float32)
        return self.texts[prompt]

    def keep_text(self, prompt: str, encoding: np.ndarray) -> None:
        self.texts[prompt] = encoding

    def score(self, images_BCHW: np.ndarray, prompts: list[str]) -> np.ndarray:
        self._leave("score", "")
        for prompt in self.missing_texts(prompts):
            self.encode_text(prompt)
        return np.array([self.texts[prompt][0] for prompt in prompts], dtype=np.float32)

    def _leave(self, what: str, text: str) -> None:
        (self.folder / f"{what}-{os.getpid()}-{uuid.uuid4().hex}").write_text(text)


class BrokenInOneProcess:
    """Mean pixel value; the process that is built first raises from its second call on (the first is a trial).

    Args:
        folder: gets a file `first`, and one `raised-<random>` each time.
    """

    differentiable: ClassVar[bool] = False
    needs_prompt: ClassVar[bool] = False
    unit: ClassVar[str] = "mean pixel value, 0 to 1"

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        try:
            (self.folder / "first").touch(exist_ok=False)
            self.broken = True
        except FileExistsError:
            self.broken = False
        self.calls = 0

    def score(self, images_BCHW: np.ndarray, prompts: list[str]) -> np.ndarray:
        self.calls += 1
        if self.broken and self.calls > 1:
            (self.folder / f"raised-{uuid.uuid4().hex}").touch()
            raise RuntimeError("this process is broken")
        return images_BCHW.mean(axis=(1, 2, 3))


class HangsOnce:
    """Mean pixel value; of all processes the first that is shown a white picture never answers.

    Args:
        folder: gets a file `hung`, then one `answered-<process>` of each process that scores a white picture.
    """

    differentiable: ClassVar[bool] = False
    needs_prompt: ClassVar[bool] = False
    unit: ClassVar[str] = "mean pixel value, 0 to 1"

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def score(self, images_BCHW: np.ndarray, prompts: list[str]) -> np.ndarray:
        if np.min(images_BCHW) == 1:
            try:
                (self.folder / "hung").touch(exist_ok=False)
                threading.Event().wait()
            except FileExistsError:
                (self.folder / f"answered-{os.getpid()}").touch()
        return images_BCHW.mean(axis=(1, 2, 3))
