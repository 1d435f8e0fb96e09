"""Work in a task, piece by piece."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from rayalign.config import RunConfig
from rayalign.errors import ConfigError, RunStopped
from rayalign.pipeline.draw import image_set
from rayalign.pipeline.streamed import streamed


def pieces(pauses_s: list[float], error: Exception | None = None) -> Iterator[int]:
    for number, pause_s in enumerate(pauses_s):
        time.sleep(pause_s)
        yield number
    if error is not None:
        raise error


def test_work_may_take_longer_than_the_limit_as_long_as_pieces_come(ray_cluster: None) -> None:
    list(streamed("warming up", 60, pieces, [0]))
    started = time.monotonic()
    assert list(streamed("counting", 3, pieces, [1.2] * 3)) == [0, 1, 2]
    assert time.monotonic() - started > 3


def test_silence_and_errors_end_it_by_name(ray_cluster: None) -> None:
    with pytest.raises(RunStopped, match=r"counting: nothing was done for 0\.5 s \(stall_timeout_s\)"):
        list(streamed("counting", 0.5, pieces, [5]))
    with pytest.raises(RunStopped, match="counting failed: 7"):
        list(streamed("counting", 60, pieces, [0], ValueError(7)))
    with pytest.raises(ConfigError, match="seed = 1: set 2"):
        list(streamed("counting", 60, pieces, [0], ConfigError("seed", 1, "set 2")))


def test_pictures_stand_in_their_order_however_they_come() -> None:
    def piece(rows: list[int]) -> dict[str, np.ndarray]:
        images = np.array(rows, np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
        prompts, seeds = np.array([f"p{row}" for row in rows], object), np.array(rows) + 10
        return {"row": np.array(rows), "prompt": prompts, "seed": seeds, "image": images, "score/jpeg": seeds / 2}

    found = image_set(RunConfig(), [piece([2, 3]), piece([0, 1])])
    assert (found.prompts, found.seeds) == (["p0", "p1", "p2", "p3"], [10, 11, 12, 13])
    assert found.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3]
    assert found.scores["jpeg"].tolist() == [5.0, 5.5, 6.0, 6.5]
