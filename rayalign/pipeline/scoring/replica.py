"""What runs in one replica of a reward service, and how Ray Serve places it."""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from ray import serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.schema import LoggingConfig

from rayalign.config import PoolConfig, RewardConfig, ServiceConfig
from rayalign.errors import ScoringError
from rayalign.pipeline.scoring.batcher import Call, CallBatcher
from rayalign.pipeline.scoring.metrics import ReplicaMetrics
from rayalign.pipeline.scoring.router import RetryRouter
from rayalign.pipeline.scoring.shared_texts import SharedTexts
from rayalign.rewards.first_answer import check_first_answer
from rayalign.rewards.mixture import check_answer
from rayalign.rewards.own import is_own
from rayalign.rewards.protocol import TextEncoder
from rayalign.rewards.table import NOTHING, build_scorer

METRICS_INTERVAL_S = 0.5  # Serve's default of 10 s would answer a burst after it is over
LOOK_BACK_S = 2.0  # load is averaged over this; Serve's default is 30 s
HEALTH_CHECK_S = 2.0  # after this a dead replica is noticed and replaced; Serve's default is 10 s
HANGS_AFTER = 2.0  # times `service.timeout_s` in one batch, which by then nobody waits for any more
GRACE_S = 5.0  # a replica that is told to stop gets this long; Serve waits it out even for one never placed
CONSTRUCTOR_TRIES = 2  # a second one for a node that died; a wrong path does not get better

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
    """Scores calls in batches of up to `service.max_batch` images, one batch at a time, in a thread of its own.

    The thread keeps the event loop free, so that the next batch gathers while this one is scored. It also leaves the
    replica answering whatever the scorer does, so `check_health` looks at the thread.
    """

    def __init__(self, run: str, reward: RewardConfig, service: ServiceConfig, cpu_threads: int) -> None:
        self._scorer: Any = build_scorer(reward)
        if is_own(reward.scorer):
            check_first_answer(reward.scorer, self._scorer)
        self._texts = SharedTexts(run, reward.scorer, self._scorer) if isinstance(self._scorer, TextEncoder) else None
        self._thread = ThreadPoolExecutor(1, initializer=fix_torch_threads, initargs=(cpu_threads,))
        self._max_batch = service.max_batch
        self._batcher: CallBatcher[ScoreAnswer] = CallBatcher(self._in_thread, service.max_batch, service.batch_wait_s)
        self._metrics = ReplicaMetrics(run, reward.scorer)
        self._hangs_after_s = HANGS_AFTER * service.timeout_s
        self._in_hand_since: float | None = None  # monotonic, of the batch that is being scored

    async def __call__(
        self, images_BCHW: np.ndarray, prompts: list[str], with_grad: bool = False, call: str = ""
    ) -> ScoreAnswer:
        """The scorer's answer. `call` is for `RetryRouter`."""
        return await self._batcher.ask(Call(images_BCHW, prompts, with_grad))

    async def _in_thread(self, calls: list[Call]) -> list[ScoreAnswer]:
        self._in_hand_since = start = time.monotonic()
        try:
            answers = await asyncio.get_running_loop().run_in_executor(self._thread, self.answer, calls)
        finally:
            self._in_hand_since = None
        num_images, text_runs = sum(map(len, calls)), getattr(self._scorer, "num_text_runs", 0)
        self._metrics.batch(num_images, time.monotonic() - start, self._batcher.num_waiting, text_runs)
        return answers

    def check_health(self) -> None:
        """Serve asks every `HEALTH_CHECK_S`, and replaces a replica that raised three times in a row.

        Raises ScoringError where the batch in hand hangs: a thread cannot be stopped, but a process can.
        """
        since = self._in_hand_since
        if since is not None and (seconds := time.monotonic() - since) > self._hangs_after_s:
            raise ScoringError(
                f"one batch is being scored for {seconds:.0f} s, more than {HANGS_AFTER:g} x service.timeout_s = "
                f"{self._hangs_after_s:g} s; this replica is to be replaced"
            )

    def answer(self, calls: list[Call]) -> list[ScoreAnswer]:
        """One answer for each call, all of one kind; their images may differ in size from those of other calls."""
        ask = self._scores_and_grads if calls[0].with_grad else self._scores
        answers: dict[int, ScoreAnswer] = {}
        for shape in {call.images_BCHW.shape[1:] for call in calls}:
            rows = [row for row, call in enumerate(calls) if call.images_BCHW.shape[1:] == shape]
            answers.update(zip(rows, self._answer_same_size([calls[row] for row in rows], ask), strict=True))
        return [answers[row] for row in range(len(calls))]

    def _answer_same_size(self, calls: list[Call], ask: Ask) -> list[ScoreAnswer]:
        """Scores all at once; if that fails, each alone: one bad call must not take its company with it."""
        images_NCHW = np.concatenate([call.images_BCHW for call in calls])
        prompts = list(chain.from_iterable(call.prompts for call in calls))
        try:
            if self._texts is not None:
                self._texts.fetch(prompts)
            scores_N, grads_NCHW = self._in_parts(images_NCHW, prompts, ask)
        except Exception as error:  # whatever a scorer raises: counted and, after retries, NaN
            if len(calls) > 1:
                return [self._answer_same_size([call], ask)[0] for call in calls]
            reason = "wrong length" if isinstance(error, ScoringError) else f"raised {type(error).__name__}"
            return [ScoreAnswer(None, reason=reason, detail=str(error))]
        ends = np.cumsum([len(call) for call in calls])[:-1]
        grads = [None] * len(calls) if grads_NCHW is None else np.split(grads_NCHW, ends)
        return [ScoreAnswer(*parts) for parts in zip(np.split(scores_N, ends), grads, strict=True)]

    def _in_parts(self, images_NCHW: np.ndarray, prompts: list[str], ask: Ask) -> Answer:
        """`ask` of at most `max_batch` images at once: a call of more would not fit the memory that it stands for."""
        size = self._max_batch
        starts = range(0, max(1, len(images_NCHW)), size)
        parts = [ask(images_NCHW[start : start + size], prompts[start : start + size]) for start in starts]
        scores, grads = zip(*parts, strict=True)
        return np.concatenate(scores), None if grads[0] is None else np.concatenate(grads)

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


def quiet_logs() -> LoggingConfig:
    return LoggingConfig(log_level="WARNING", enable_access_log=False)  # else two lines for each call


def score_application(
    run: str,
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
        # Of the smallest calls one batch at a replica, the rest at the handles, where new replicas find it.
        max_ongoing_requests=service.max_batch,
        request_router_config=RequestRouterConfig(request_router_class=RetryRouter),
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
    return deployment(ScoreReplica).bind(run, reward, service, cpu_threads)
