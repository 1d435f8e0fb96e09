"""Scoring as a service: one autoscaled Ray Serve application per scorer.

    actor: await RewardClient(images, prompts)
        |-- "jpeg" ----> handle --> replica 1..max (ScoreReplica: batches of calls) --+
        |-- "clip" ----> handle --> replica 1..max                                   -+--> mix --> Scores
        '-- held out --> handle --> replica 1..max    (measured, not in the total)   -+

A replica that dies loses the calls that it holds; the client asks again. No HTTP anywhere.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections import Counter
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import ray
from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ReplicaState

from rayalign.config import PoolConfig, RewardConfig, ServiceConfig
from rayalign.errors import RayalignError, ScoringError
from rayalign.pipeline.score_replica import (
    APP_PREFIX,
    ScoreAnswer,
    app_name,
    quiet_logs,
    score_application,
)
from rayalign.records import Scores, Standard
from rayalign.rewards.environments import runtime_env_of
from rayalign.rewards.mixture import check_answer, mix, mix_gradients
from rayalign.rewards.table import check_scorer, scorer_facts

logger = logging.getLogger(__name__)

POLL_S = 0.2
ERRORS_MODULE = f"{RayalignError.__module__}."  # how a traceback's last line names our own
FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.2, 5.0  # doubled in between: a replaced replica needs a few seconds


def start_reward_services(
    rewards: Sequence[RewardConfig],
    pool: PoolConfig,
    service: ServiceConfig,
    cpu_threads: int,
    start_timeout_s: float = 600.0,
) -> None:
    """One application per scorer, held-out ones included; returns when each has `pool.min` replicas up.

    Args:
        rewards: scorers and their options; the weights belong to the client.
        pool: replicas of each scorer and what a replica takes.
        cpu_threads: torch threads of a replica.
        start_timeout_s: for all of them together; includes downloading weights.

    Raises:
        ConfigError: unknown scorer, or an environment that cannot run it.
        RayalignError: a scorer's environment could not be made, its constructor failed (with its traceback), or there
            is no room for it. Nothing is left running then.
    """
    for reward in rewards:
        check_scorer(reward.scorer, reward.options)
    # Before Serve: the first install takes its time, and one that fails must leave no service behind. The scorer's
    # packages are imported by its replicas, never here.
    runtime_envs = {reward.scorer: runtime_env_for(reward) for reward in rewards}
    serve.start(proxy_location="Disabled", logging_config=quiet_logs())
    targets = [
        serve.RunTarget(
            target=score_application(reward, pool, service, cpu_threads, runtime_envs[reward.scorer]),
            name=app_name(reward.scorer),
            route_prefix=None,
        )
        for reward in rewards
    ]
    # Not `serve.run`, which waits without end for a replica that can't be placed.
    serve.run_many(targets, wait_for_ingress_deployment_creation=False, wait_for_applications_running=False)
    try:
        _wait_until_running([reward.scorer for reward in rewards], pool, start_timeout_s)
    except RayalignError:
        stop_reward_services()
        raise


def runtime_env_for(reward: RewardConfig) -> dict[str, Any]:
    """What a user's own class asks for, then the environment that we make or that the user named."""
    own = {**scorer_facts(reward.scorer).runtime_env, **runtime_env_of(reward.scorer, reward.environment)}
    # Serve hands on no more of the job's than its working folder, and may have been started by another job.
    sent = ray.get_runtime_context().runtime_env.get("py_modules")
    return {"py_modules": sent, **own} if sent else own


def stop_reward_services() -> None:
    """Ends every reward service of this cluster, and Serve itself unless somebody else uses it.

    Close the clients first: handles that outlive the Serve controller log reconnects.
    """
    apps = serve.status().applications
    ours = [name for name in apps if name.startswith(APP_PREFIX)]
    if len(ours) == len(apps):
        serve.shutdown()
        return
    with ThreadPoolExecutor(max(1, len(ours))) as threads:  # each waits for its replicas to be gone
        list(threads.map(serve.delete, ours))


def scale_of(name: str) -> int:
    """Replicas of scorer `name` that answer calls now; 0 where it is not served."""
    app = serve.status().applications.get(app_name(name))
    if app is None:
        return 0
    return sum(deployment.replica_states.get(ReplicaState.RUNNING, 0) for deployment in app.deployments.values())


class Answered(NamedTuple):
    """float32 (B,) of one scorer, NaN where it has no score; its gradients, if asked for; why it did not answer."""

    scores_B: np.ndarray
    grads_BCHW: np.ndarray | None
    reason: str = ""


class RewardClient:
    """Asks all scorers at once. Cheap to make; finds the services at its first call, in the actor using it.

    Args:
        rewards: guiding scorers and their weights.
        service: `timeout_s` of one try, `retries` after the first.
        heldout: scorers measured beside them: in `parts`, never in the total, whose failures cost no pair.

    Attributes:
        standards: of the policy version in use, where rewards are standardised; the user of the client sets them.
        failures: "<scorer>: <reason>" -> images left without a score, after all retries.
        retries: "<scorer>: <reason>" -> further tries made.
    """

    def __init__(self, rewards: Sequence[RewardConfig], service: ServiceConfig, heldout: Sequence[str] = ()) -> None:
        self.weights = {reward.scorer: reward.weight for reward in rewards}
        self.scorers = [*self.weights, *heldout]
        self.standards: dict[str, Standard] = {}
        self.failures: Counter[str] = Counter()
        self.retries: Counter[str] = Counter()
        self._service = service
        self._handles: dict[str, DeploymentHandle] = {}

    async def __call__(self, images_BCHW: np.ndarray, prompts: list[str]) -> Scores:
        """float32 images (B, 3, H, W) in [0, 1] and B prompts -> Scores; an entry that failed holds NaN.

        Raises:
            ValueError: not B images with B prompts.
            RayalignError: a scorer is not served at all.
        """
        start = time.perf_counter()
        answers = await self._ask_all(self.scorers, images_BCHW, prompts, with_grad=False)
        return self._mix(answers, start)

    async def score_and_grad(self, images_BCHW: np.ndarray, prompts: list[str]) -> tuple[Scores, np.ndarray]:
        """Scores of the guiding scorers, and d total_b / d image_b, float32 (B, 3, H, W); NaN where one failed.

        Raises as `__call__`. Every guiding scorer must be differentiable.
        """
        start = time.perf_counter()
        answers = await self._ask_all(list(self.weights), images_BCHW, prompts, with_grad=True)
        scores = self._mix(answers, start)
        grads = {
            name: np.full_like(images_BCHW, np.nan) if answer.grads_BCHW is None else answer.grads_BCHW
            for name, answer in answers.items()
        }
        return scores, mix_gradients(self.weights, grads, self.standards)

    def _mix(self, answers: dict[str, Answered], start: float) -> Scores:
        parts = {name: answer.scores_B for name, answer in answers.items()}
        reasons = {name: answer.reason for name, answer in answers.items()}
        return mix(self.weights, parts, time.perf_counter() - start, self.standards, reasons)

    async def _ask_all(
        self, names: list[str], images_BCHW: np.ndarray, prompts: list[str], with_grad: bool
    ) -> dict[str, Answered]:
        if images_BCHW.ndim != 4 or images_BCHW.shape[1] != 3 or len(images_BCHW) != len(prompts):
            raise ValueError(f"images {images_BCHW.shape} and {len(prompts)} prompts; give (B, 3, H, W) and B prompts")
        if not self._handles:
            # In a thread, as it blocks on the Serve controller.
            self._handles = await asyncio.to_thread(lambda: {name: _find(name) for name in self.scorers})
        images_BCHW = np.ascontiguousarray(images_BCHW, dtype=np.float32)  # uint8 would round: other bits than local
        answers = await asyncio.gather(*(self._score(name, images_BCHW, prompts, with_grad) for name in names))
        return dict(zip(names, answers, strict=True))

    def close(self) -> None:
        """Lets go of the services. Call before they stop, or the handles log reconnects."""
        for handle in self._handles.values():
            handle.shutdown()
        self._handles = {}

    async def _score(self, name: str, images_BCHW: np.ndarray, prompts: list[str], with_grad: bool) -> Answered:
        """What one scorer says in the end, after retries."""
        num_images = len(images_BCHW)
        for attempt in range(self._service.retries + 1):
            answer = await self._ask(name, images_BCHW, prompts, with_grad)
            if answer.scores_B is not None:
                num_bad = int(np.count_nonzero(~np.isfinite(answer.scores_B)))
                if num_bad:  # an answer, and the same one if asked again
                    self._count_failure(name, "not finite", num_bad, f"{num_bad} of {num_images} scores")
                return Answered(answer.scores_B, answer.grads_BCHW)
            if attempt < self._service.retries:
                self.retries[f"{name}: {answer.reason}"] += 1
                await asyncio.sleep(min(FIRST_BACKOFF_S * 2**attempt, MAX_BACKOFF_S))
        self._count_failure(name, answer.reason, num_images, answer.detail)
        return Answered(np.full(num_images, np.nan, dtype=np.float32), None, answer.reason)

    async def _ask(self, name: str, images_BCHW: np.ndarray, prompts: list[str], with_grad: bool) -> ScoreAnswer:
        """One try. Faults on the way to the scorer become an answer without scores."""
        response = self._handles[name].remote(images_BCHW, prompts, with_grad)
        try:
            answer = await asyncio.wait_for(_result(response), self._service.timeout_s)
            if answer.scores_B is not None:
                check_answer(answer.scores_B, len(images_BCHW))
            return answer
        except TimeoutError:
            response.cancel()
            return ScoreAnswer(None, reason="timeout", detail=f"no answer in {self._service.timeout_s:g} s")
        except ScoringError as error:
            return ScoreAnswer(None, reason="wrong length", detail=str(error))
        except RayActorError as error:
            return ScoreAnswer(None, reason="replica died", detail=str(error))
        except (RayError, RayServeException) as error:
            return ScoreAnswer(None, reason=f"service {type(error).__name__}", detail=str(error))

    def _count_failure(self, name: str, reason: str, num_images: int, detail: str) -> None:
        key = f"{name}: {reason}"
        if key not in self.failures:
            logger.warning("no score from %s (further ones are counted, not logged): %s", key, detail)
        self.failures[key] += num_images


async def _result(response: Awaitable[ScoreAnswer]) -> ScoreAnswer:
    return await response  # `wait_for` takes coroutines, not any awaitable


def _find(scorer: str) -> DeploymentHandle:
    try:
        return serve.get_app_handle(app_name(scorer))
    except RayServeException as error:
        raise RayalignError(f"scorer {scorer} is not served; call start_reward_services with it first") from error


def _wait_until_running(scorers: Sequence[str], pool: PoolConfig, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    waiting = list(scorers)
    while waiting:
        apps = serve.status().applications
        for scorer in waiting:
            app = apps.get(app_name(scorer))
            if app is not None and app.status == "DEPLOY_FAILED":
                messages = [overview.message for overview in app.deployments.values()]
                raise RayalignError(f"scorer {scorer} did not start: {_cause(messages or [app.message])}")
        waiting = [name for name in waiting if app_name(name) not in apps or apps[app_name(name)].status != "RUNNING"]
        if waiting and time.monotonic() > deadline:
            need = f"placement.scorer.min = {pool.min} x cpus = {pool.cpus:g}, gpus = {pool.gpus:g}"
            raise RayalignError(
                f"scorers {', '.join(waiting)} were not up after {timeout_s:g} s. Either the cluster has no room "
                f"(each needs {need}: lower these or add nodes), or loading takes longer (a download? Fetch the "
                f"weights beforehand)"
            )
        time.sleep(POLL_S if waiting else 0)


def _cause(messages: Sequence[str]) -> str:
    """The exception first, then the innermost traceback: Serve wraps it in several of its own, coloured.

    Of an error that `rayalign` raised on purpose the message alone.
    """
    text = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(messages)).strip()
    traceback = text.rpartition("Traceback (most recent call last):\n")[2]
    last = text.splitlines()[-1] if text else "no reason given"
    if last.startswith(ERRORS_MODULE):
        return last.partition(": ")[2]
    return f"{last}\n{traceback}"
