"""What runs in one replica of a reward service, and how Ray Serve places it."""

from __future__ import annotations

import asyncio
import hashlib
import re
import sys
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from ray import serve
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import LoggingConfig

from rayalign.config import PoolConfig, RewardConfig, ServiceConfig
from rayalign.errors import ScoringError
from rayalign.rewards.first_answer import check_first_answer
from rayalign.rewards.mixture import check_answer
from rayalign.rewards.own import is_own
from rayalign.rewards.table import NOTHING, build_scorer

APP_PREFIX = "rayalign-score-"
METRICS_INTERVAL_S = 0.5  # Serve's default of 10 s would answer a burst after it is over
LOOK_BACK_S = 2.0  # load is averaged over this; Serve's default is 30 s
HEALTH_CHECK_S = 2.0  # after this a dead replica is noticed and replaced; Serve's default is 10 s
GRACE_S = 5.0  # a replica that is told to stop gets this long; Serve waits it out even for one never placed
CONSTRUCTOR_TRIES = 2  # a second one for a node that died; a wrong path does not get better

Call = tuple[np.ndarray, list[str]]  # images float32 (B, 3, H, W) in [0, 1], B prompts
Answer = tuple[np.ndarray, np.ndarray | None]  # scores (N,), gradients (N, 3, H, W) where they were asked for
Ask = Callable[[np.ndarray, list[str]], Answer]


@dataclass(frozen=True)
class ScoreAnswer:
    """What a replica says to one call. A failure travels as a value: Serve would log each exception."""

    scores_B: np.ndarray | None  # float32 (B,), may hold NaN; None: no answer
    grads_BCHW: np.ndarray | None = None  # float32, d score / d image, where it was asked for
    reason: str = ""  # of the failure, few distinct ones, to count by
    detail: str = ""  # of the failure, to log once


class ScoreReplica:
    """Scores calls in batches of up to `service.max_batch`, one batch at a time, in a thread of its own.

    The thread keeps the event loop free, so that the next batch gathers while this one is scored.
    """

    def __init__(self, reward: RewardConfig, service: ServiceConfig, cpu_threads: int) -> None:
        self._scorer: Any = build_scorer(reward)
        if is_own(reward.scorer):
            check_first_answer(reward.scorer, self._scorer)
        self._thread = ThreadPoolExecutor(1, initializer=fix_torch_threads, initargs=(cpu_threads,))
        batch = serve.batch(max_batch_size=service.max_batch, batch_wait_timeout_s=service.batch_wait_s)
        # Each takes one call, where the method takes a list.
        self._scored: Any = batch(self._score_batch)
        self._graded: Any = batch(self._grade_batch)

    async def __call__(self, images_BCHW: np.ndarray, prompts: list[str], with_grad: bool = False) -> ScoreAnswer:
        return await (self._graded if with_grad else self._scored)(images_BCHW, prompts)

    async def _score_batch(self, images: list[np.ndarray], prompts: list[list[str]]) -> list[ScoreAnswer]:
        return await self._in_thread(list(zip(images, prompts, strict=True)), self._scores)

    async def _grade_batch(self, images: list[np.ndarray], prompts: list[list[str]]) -> list[ScoreAnswer]:
        return await self._in_thread(list(zip(images, prompts, strict=True)), self._scores_and_grads)

    async def _in_thread(self, calls: list[Call], ask: Ask) -> list[ScoreAnswer]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self.answer, calls, ask)

    def answer(self, calls: list[Call], ask: Ask | None = None) -> list[ScoreAnswer]:
        """One answer for each call, whose images may differ in size from those of other calls."""
        ask = ask or self._scores
        answers: dict[int, ScoreAnswer] = {}
        for shape in {images.shape[1:] for images, _ in calls}:
            rows = [row for row, (images, _) in enumerate(calls) if images.shape[1:] == shape]
            answers.update(zip(rows, self._answer_same_size([calls[row] for row in rows], ask), strict=True))
        return [answers[row] for row in range(len(calls))]

    def _answer_same_size(self, calls: list[Call], ask: Ask) -> list[ScoreAnswer]:
        """Scores all at once; if that fails, each alone: one bad call must not take its company with it."""
        images_NCHW = np.concatenate([images for images, _ in calls])
        prompts = list(chain.from_iterable(prompts for _, prompts in calls))
        try:
            scores_N, grads_NCHW = ask(images_NCHW, prompts)
        except Exception as error:  # whatever a scorer raises: counted and, after retries, NaN
            if len(calls) > 1:
                return [self._answer_same_size([call], ask)[0] for call in calls]
            reason = "wrong length" if isinstance(error, ScoringError) else f"raised {type(error).__name__}"
            return [ScoreAnswer(None, reason=reason, detail=str(error))]
        ends = np.cumsum([len(images) for images, _ in calls])[:-1]
        grads = [None] * len(calls) if grads_NCHW is None else np.split(grads_NCHW, ends)
        return [ScoreAnswer(*parts) for parts in zip(np.split(scores_N, ends), grads, strict=True)]

    def _scores(self, images_NCHW: np.ndarray, prompts: list[str]) -> Answer:
        return check_answer(self._scorer.score(images_NCHW, prompts), len(images_NCHW)), None

    def _scores_and_grads(self, images_NCHW: np.ndarray, prompts: list[str]) -> Answer:
        """Both from one forward, so that guidance and ranking cannot disagree on a score."""
        scores_N, grads_NCHW = self._scorer.score_and_grad(images_NCHW, prompts)
        if np.shape(grads_NCHW) != images_NCHW.shape:
            raise ScoringError(f"gave a gradient of shape {np.shape(grads_NCHW)} for images {images_NCHW.shape}")
        return check_answer(scores_N, len(images_NCHW)), np.asarray(grads_NCHW, dtype=np.float32)


def fix_torch_threads(num_threads: int) -> None:
    """The number of threads changes the order of float sums. Nothing to do for a scorer without torch."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(num_threads)


def app_name(scorer: str) -> str:
    """Serve's name of a scorer's application: a function of its name alone, so that a client finds it."""
    slug = re.sub(r"[^A-Za-z0-9-]+", "-", scorer)
    if slug == scorer:
        return APP_PREFIX + scorer
    return f"{APP_PREFIX}{slug}-{hashlib.blake2b(scorer.encode(), digest_size=3).hexdigest()}"


def quiet_logs() -> LoggingConfig:
    return LoggingConfig(log_level="WARNING", enable_access_log=False)  # else two lines for each call


def score_application(
    reward: RewardConfig,
    pool: PoolConfig,
    service: ServiceConfig,
    cpu_threads: int,
    runtime_env: Mapping[str, Any] = NOTHING,
) -> serve.Application:
    """One scorer's service. `runtime_env` is Ray's, for a scorer that cannot run beside everything else."""
    deployment = serve.deployment(
        # A name of its own each time. In a process that talked to an earlier deployment of the same name, Ray 2.60's
        # handles miss the new one's settings, report no load, and the service never grows.
        name=f"scorer-{uuid.uuid4().hex[:8]}",
        ray_actor_options={"num_cpus": pool.cpus, "num_gpus": pool.gpus, "runtime_env": dict(runtime_env)},
        # One batch at a replica, the rest at the handles: new replicas then find something to do.
        max_ongoing_requests=service.max_batch,
        max_constructor_retry_count=CONSTRUCTOR_TRIES,
        health_check_period_s=HEALTH_CHECK_S,
        graceful_shutdown_timeout_s=GRACE_S,
        autoscaling_config=AutoscalingConfig(
            min_replicas=pool.min,
            max_replicas=pool.max,
            target_ongoing_requests=service.target_ongoing,
            upscale_delay_s=service.upscale_delay_s,
            downscale_delay_s=service.downscale_delay_s,
            metrics_interval_s=METRICS_INTERVAL_S,
            look_back_period_s=LOOK_BACK_S,
        ),
        logging_config=quiet_logs(),
    )
    return deployment(ScoreReplica).bind(reward, service, cpu_threads)
