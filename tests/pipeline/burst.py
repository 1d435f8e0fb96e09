"""Run as a process of its own on a cluster that grows: one burst of scoring, then rest. Prints what it saw as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, ClassVar

import numpy as np
import ray

from rayalign.config import PoolConfig, RewardConfig, ServiceConfig
from rayalign.pipeline.cluster import connect
from rayalign.pipeline.scoring.service import RewardClient, scale_of, start_reward_services, stop_reward_services

RUN = "burst"
SCORER = "tests.pipeline.burst:SlowBrightness"
SERVICE = ServiceConfig(max_batch=1, target_ongoing=1.0, upscale_delay_s=0.3, downscale_delay_s=2.0)
CALLERS, CALLS_EACH = 12, 8


class SlowBrightness:
    """Mean pixel value, after `seconds` of work on a core for each image."""

    differentiable: ClassVar[bool] = False
    needs_prompt: ClassVar[bool] = False
    unit: ClassVar[str] = "mean pixel value, 0 to 1"

    def __init__(self, seconds: float = 0.15) -> None:
        self.seconds = seconds

    def score(self, images_BCHW: np.ndarray, prompts: list[str]) -> np.ndarray:
        done = time.thread_time() + self.seconds * len(images_BCHW)
        while time.thread_time() < done:
            pass
        return images_BCHW.mean(axis=(1, 2, 3))


def main(replicas: int, wait_s: float) -> dict[str, Any]:
    """One replica to `replicas` and back. Every image is of one value, its number's, so that its score names it."""
    reward = RewardConfig(scorer=SCORER)
    connect()
    seen: dict[str, Any] = {"nodes_before": num_workers()}
    start_reward_services(RUN, [reward], PoolConfig(min=1, max=replicas, cpus=1), SERVICE, cpu_threads=1)
    seen["started"] = scale()
    client = RewardClient(RUN, [reward], SERVICE)
    try:
        started = time.monotonic()
        seen |= asyncio.run(burst(client, replicas, wait_s))
        seen["burst_s"] = time.monotonic() - started
    finally:
        client.close()
    started = time.monotonic()
    while scale() != (1, 1) and time.monotonic() < started + wait_s:
        time.sleep(0.2)
    seen |= {"rested": scale(), "rest_s": time.monotonic() - started}
    stop_reward_services(RUN)
    return seen


async def burst(client: RewardClient, replicas: int, wait_s: float) -> dict[str, Any]:
    """Callers that ask again and again, `CALLS_EACH` times at least, until the service has grown (or time is up)."""
    deadline = time.monotonic() + wait_s
    grown = asyncio.Event()
    scores: dict[int, list[float]] = {}

    async def caller(number: int) -> None:
        scores[number] = []
        while len(scores[number]) < CALLS_EACH or not grown.is_set():
            value = np.float32(image_value(number, len(scores[number])))
            answer = await client(np.full((1, 3, 8, 8), value, np.float32), [""])
            scores[number].append(float(answer.total_B[0]))

    async def watch() -> None:
        while await asyncio.to_thread(scale) != (replicas, replicas) and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
        grown.set()

    await asyncio.gather(watch(), *(caller(number) for number in range(CALLERS)))
    return {
        "grown": await asyncio.to_thread(scale),
        "scores": [scores[number] for number in range(CALLERS)],
        "failures": client.failures,
        "retries": client.retries,
    }


def image_value(caller: int, call: int) -> float:
    return (caller + 1) / 16 + call / 2**16


def scale() -> tuple[int, int]:
    """(replicas that answer, worker nodes)."""
    return scale_of(RUN, SCORER), num_workers()


def num_workers() -> int:
    return sum(node["Alive"] and node["Resources"].get("CPU", 0) > 0 for node in ray.nodes())


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), float(sys.argv[2]))))
