"""What scoring.py times: services side by side on one cluster, and scorers whose work is known."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np
from loop_timing import stub_cluster

from rayalign.config import PoolConfig, RewardConfig, ServiceConfig
from rayalign.pipeline.scoring.service import RewardClient, start_reward_services, stop_reward_services

CPUS = 0.5  # logical, of a replica: an embedded Ray declares eight
CALL_SHAPES = ((1, 128), (2, 512), (4, 1024))  # images, pixels a side: 0.2, 6.3 and 50 MB
ROUNDS_TO_CALIBRATE = 200_000

Ask = Callable[[], Awaitable[np.ndarray]]  # float32 (B,) of all the images of a repeat


class SelfTimed:
    """Reads every pixel, and answers with the seconds that it took, an equal share to each image."""

    differentiable: ClassVar[bool] = True
    needs_prompt: ClassVar[bool] = False
    unit: ClassVar[str] = "seconds that the scorer worked on an image"

    def score(self, images_BCHW: np.ndarray, prompts: list[str]) -> np.ndarray:
        started = time.perf_counter()
        images_BCHW.max()
        return self._share(started, len(images_BCHW))

    def score_and_grad(self, images_BCHW: np.ndarray, prompts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        started = time.perf_counter()
        grad_BCHW = images_BCHW + 1
        return self._share(started, len(images_BCHW)), grad_BCHW

    def _share(self, started: float, num_images: int) -> np.ndarray:
        return np.full(num_images, (time.perf_counter() - started) / num_images, dtype=np.float32)


class Grinder:
    """A fixed amount of work on one core for each image: `rounds` of a hash, whose first bits are the score."""

    differentiable: ClassVar[bool] = False
    needs_prompt: ClassVar[bool] = False
    unit: ClassVar[str] = "hash of the image, 0 to 1"

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    def score(self, images_BCHW: np.ndarray, prompts: list[str]) -> np.ndarray:
        return np.array([self._grind(image_CHW) for image_CHW in images_BCHW], dtype=np.float32)

    def _grind(self, image_CHW: np.ndarray) -> float:
        if not np.isfinite(image_CHW).all():
            return float("nan")
        return int.from_bytes(hashlib.pbkdf2_hmac("sha256", image_CHW.tobytes(), b"", self.rounds)[:3]) / 2**24


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """All numbers, as the JSON has them."""
    with stub_cluster():
        batching, same_batched = _batching(given)
        replicas, same_replicas = _replicas(given)
        overhead = _overhead(given.repeats)
    return {
        "batching": batching,
        "replicas": replicas,
        "overhead": overhead,
        "same_scores": same_batched and same_replicas,
    }


def _batching(given: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    images, prompts = _images(given.images, given.size), [f"a red circle {n}" for n in range(given.images)]
    reward = RewardConfig(scorer=given.scorer)
    pool = PoolConfig(cpus=CPUS, gpus=given.gpus)
    with (
        _served("single", reward, pool, 1) as single,
        _served("batched", reward, pool, given.batch) as batched,
    ):
        ways: dict[str, Ask] = {
            "one image a call, one after the other": lambda: _in_turn(single, images, prompts),
            "one image a call, all at once, not batched": lambda: _at_once(single, images, prompts, 1),
            "one image a call, all at once, batched": lambda: _at_once(batched, images, prompts, 1),
            f"calls of {given.batch} images": lambda: _at_once(batched, images, prompts, given.batch),
        }
        seconds, same = asyncio.run(_side_by_side(ways, given.repeats))
    return _compared(seconds, given.images), same


def _replicas(given: argparse.Namespace) -> tuple[dict[str, Any], bool]:
    images, prompts = _images(given.images, 8), [""] * given.images
    reward = RewardConfig(scorer="scoring_load:Grinder", options={"rounds": _rounds(given.work_s)})
    one_pool, two_pool = PoolConfig(cpus=CPUS), PoolConfig(min=2, max=2, cpus=CPUS)
    with _served("one", reward, one_pool, 1) as one, _served("two", reward, two_pool, 1) as two:
        ways: dict[str, Ask] = {
            "1 replica": lambda: _at_once(one, images, prompts, 1),
            "2 replicas": lambda: _at_once(two, images, prompts, 1),
        }
        seconds, same = asyncio.run(_side_by_side(ways, given.repeats))
    return _compared(seconds, given.images), same


def _overhead(repeats: int) -> list[dict[str, Any]]:
    reward = RewardConfig(scorer="scoring_load:SelfTimed")
    with _served("timed", reward, PoolConfig(cpus=CPUS), ServiceConfig().max_batch) as client:
        return [asyncio.run(_overhead_of(client, count, side, repeats)) for count, side in CALL_SHAPES]


async def _overhead_of(client: RewardClient, num_images: int, side: int, repeats: int) -> dict[str, Any]:
    images, prompts = _images(num_images, side), [""] * num_images
    plain, graded = [], []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        scores = await client(images, prompts)
        plain.append(time.perf_counter() - started - _own_time(scores.total_B))
        started = time.perf_counter()
        scores, _ = await client.score_and_grad(images, prompts)
        graded.append(time.perf_counter() - started - _own_time(scores.total_B))
    return {
        "images": num_images,
        "side": side,
        "megabytes": images.nbytes / 1e6,
        "overhead_s": _spread(plain[1:]),  # the first warms up
        "overhead_with_gradient_s": _spread(graded[1:]),
    }


def _own_time(scores_B: np.ndarray) -> float:
    if not np.isfinite(scores_B).all():
        raise RuntimeError("a call failed: its round trip says nothing")
    return float(scores_B.sum())


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def _compared(seconds: dict[str, list[float]], num_images: int) -> dict[str, Any]:
    """Name -> images a second, and how many times those of the first name, side by side."""
    first = next(iter(seconds.values()))
    return {
        name: {
            "images_per_s": _spread([num_images / one for one in taken]),
            "ratio": _spread([base / one for base, one in zip(first, taken, strict=True)]),
        }
        for name, taken in seconds.items()
    }


async def _side_by_side(ways: dict[str, Ask], repeats: int) -> tuple[dict[str, list[float]], bool]:
    """Seconds of each way in each repeat, and whether all gave the same scores every time."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    seen: set[bytes] = set()
    for repeat in range(-1, repeats):  # -1 warms up
        for name in list(ways)[:: -1 if repeat % 2 else 1]:
            started = time.perf_counter()
            scores = await ways[name]()
            if repeat >= 0:
                seconds[name].append(time.perf_counter() - started)
            seen.add(scores.tobytes())
            if not np.isfinite(scores).all():
                raise RuntimeError(f"{name}: {np.isnan(scores).sum()} images got no score")
    return seconds, len(seen) == 1


async def _in_turn(client: RewardClient, images: np.ndarray, prompts: list[str]) -> np.ndarray:
    answers = [await client(images[n : n + 1], prompts[n : n + 1]) for n in range(len(images))]
    return np.concatenate([answer.total_B for answer in answers])


async def _at_once(client: RewardClient, images: np.ndarray, prompts: list[str], size: int) -> np.ndarray:
    starts = range(0, len(images), size)
    answers = await asyncio.gather(*(client(images[n : n + size], prompts[n : n + size]) for n in starts))
    return np.concatenate([answer.total_B for answer in answers])


def _images(count: int, side: int) -> np.ndarray:
    return np.random.default_rng(count).random((count, 3, side, side), dtype=np.float32)


def _rounds(seconds: float) -> int:
    """Of the hash, that take about this long on this machine."""
    started = time.perf_counter()
    Grinder(ROUNDS_TO_CALIBRATE).score(_images(1, 8), [""])
    return max(1, round(ROUNDS_TO_CALIBRATE * seconds / (time.perf_counter() - started)))


@contextmanager
def _served(run: str, reward: RewardConfig, pool: PoolConfig, max_batch: int) -> Iterator[RewardClient]:
    """A service of its own, warm."""
    service = ServiceConfig(max_batch=max_batch)
    start_reward_services(run, [reward], pool, service, cpu_threads=1)
    client = RewardClient(run, [reward], service)
    try:
        yield client
    finally:
        client.close()
        stop_reward_services(run)
