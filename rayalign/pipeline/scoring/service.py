"""Scoring as a service: one autoscaled Ray Serve application per scorer.

    actor: await RewardClient(images, prompts)
        |-- "jpeg" ----> handle --> replica 1..max (ScoreReplica: batches of calls) --+
        |-- "clip" ----> handle --> replica 1..max                                   -+--> mix --> Scores
        '-- held out --> handle --> replica 1..max    (measured, not in the total)   -+

A replica that dies loses the calls that it holds; the client asks again. No HTTP anywhere. Serve's own calls wait for
its controller without end, so each of ours here has a deadline.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import ray
from ray import serve
from ray.serve.schema import ApplicationStatusOverview, ReplicaState

from rayalign.config import PoolConfig, RewardConfig, ServiceConfig
from rayalign.errors import RayalignError
from rayalign.pipeline.deadline import NoAnswer, in_thread, within
from rayalign.pipeline.scoring.client import RewardClient
from rayalign.pipeline.scoring.names import APP_PREFIX, app_name
from rayalign.pipeline.scoring.replica import quiet_logs, score_application
from rayalign.pipeline.scoring.text_store import has_text_store, start_text_store, stop_text_store
from rayalign.rewards.environments import runtime_env_of
from rayalign.rewards.table import check_scorer, scorer_facts

__all__ = ["RewardClient", "end_left_behind", "scale_of", "start_reward_services", "stop_reward_services"]

logger = logging.getLogger(__name__)
AnswerT = TypeVar("AnswerT")

POLL_S = 0.2
SERVE_S = 180.0  # to start Serve on a busy machine, or for a controller that died to be up again
STOP_S = 90.0  # Serve itself waits 60 s for the replicas of an application to be gone
ERRORS_MODULE = f"{RayalignError.__module__}."  # how a traceback's last line names our own


def start_reward_services(
    run: str,
    rewards: Sequence[RewardConfig],
    pool: PoolConfig,
    service: ServiceConfig,
    cpu_threads: int,
    start_timeout_s: float = 600.0,
) -> None:
    """One application per scorer, held-out ones included; returns when each has its least number of replicas up.

    Args:
        run: whose services these are (`RunConfig.key`), so that runs on one cluster do not meet each other's.
        rewards: scorers and their options; the weights belong to the client.
        pool: replicas of each scorer and what a replica takes, unless it has a `placement` of its own.
        cpu_threads: torch threads of a replica.
        start_timeout_s: for all of them together; includes downloading weights.

    Raises:
        ConfigError: unknown scorer, or an environment that cannot run it.
        RayalignError: a scorer's environment could not be made, its constructor failed (with its traceback), or there
            is no room for it. Nothing is left running then.
        RunStopped: Ray Serve did not answer.
    """
    for reward in rewards:
        check_scorer(reward.scorer, reward.options)
    # Before Serve: the first install takes its time, and one that fails must leave no service behind. The scorer's
    # packages are imported by its replicas, never here.
    runtime_envs = {reward.scorer: runtime_env_for(reward) for reward in rewards}
    _ask_serve("start", lambda: serve.start(proxy_location="Disabled", logging_config=quiet_logs()))
    targets = [
        serve.RunTarget(
            target=score_application(run, reward, reward.pool(pool), service, cpu_threads, runtime_envs[reward.scorer]),
            name=app_name(run, reward.scorer),
            route_prefix=None,
        )
        for reward in rewards
    ]
    start_text_store(run)
    end_left_behind()
    # Not `serve.run`, which waits without end for a replica that can't be placed.
    at_once = {"wait_for_ingress_deployment_creation": False, "wait_for_applications_running": False}
    _ask_serve("take the scorers", lambda: serve.run_many(targets, **at_once))
    try:
        _wait_until_running(run, {reward.scorer: reward.pool(pool) for reward in rewards}, start_timeout_s)
    except RayalignError:
        stop_reward_services(run)
        raise


def runtime_env_for(reward: RewardConfig) -> dict[str, Any]:
    """What a user's own class asks for, then the environment that we make or that the user named."""
    own = {**scorer_facts(reward.scorer).runtime_env, **runtime_env_of(reward.scorer, reward.environment)}
    # Serve hands on no more of the job's than its working folder, and may have been started by another job.
    sent = ray.get_runtime_context().runtime_env.get("py_modules")
    return {"py_modules": sent, **own} if sent else own


def stop_reward_services(run: str) -> None:
    """Ends every reward service of the run, and Serve itself unless somebody else uses it.

    Close the clients first: handles that outlive the Serve controller log reconnects. Where Serve does not answer, or a
    replica does not go, that is logged, no error: it comes at the end, of a run that is done or has an error already.
    """
    try:
        within(STOP_S, f"the driver waits for Ray Serve to end the scorers of run {run}", lambda: _end_services(run))
    except (NoAnswer, TimeoutError) as error:
        logger.warning("reward services may be left running: %s", error)
    stop_text_store(run)


def _end_services(run: str) -> None:
    apps = serve.status().applications
    ours = [name for name in apps if name.startswith(app_name(run))]
    if len(ours) == len(apps):
        serve.shutdown()
    else:
        # Side by side, as each waits for its replicas to be gone.
        for ended in [in_thread(partial(serve.delete, name)) for name in ours]:
            ended.result()


def end_left_behind() -> None:
    """Ends reward services of runs whose process died without ending them: its store of texts has died with it."""
    ours = [name for name in _applications() if name.startswith(f"{APP_PREFIX}.")]
    for name in ours:
        if not has_text_store(name):
            _ask_serve(f"end {name}, which an earlier run left behind", partial(serve.delete, name))


def scale_of(run: str, scorer: str) -> int:
    """Replicas of a run's scorer that answer calls now; 0 where it is not served."""
    app = _applications().get(app_name(run, scorer))
    if app is None:
        return 0
    return sum(deployment.replica_states.get(ReplicaState.RUNNING, 0) for deployment in app.deployments.values())


def _applications() -> dict[str, ApplicationStatusOverview]:
    """All that Serve runs, by name."""
    return _ask_serve("say what it runs", serve.status).applications


def _ask_serve(to: str, call: Callable[[], AnswerT]) -> AnswerT:
    """Raises RunStopped where no answer comes."""
    return within(SERVE_S, f"the driver waits for Ray Serve to {to}", call)


def _wait_until_running(run: str, pools: Mapping[str, PoolConfig], timeout_s: float) -> None:
    """`pools` of each scorer."""
    deadline = time.monotonic() + timeout_s
    waiting = list(pools)
    while waiting:
        apps = _applications()
        for scorer in waiting:
            app = apps.get(app_name(run, scorer))
            if app is not None and app.status == "DEPLOY_FAILED":
                messages = [overview.message for overview in app.deployments.values()]
                raise RayalignError(f"scorer {scorer} did not start: {_cause(messages or [app.message])}")
        names = {scorer: app_name(run, scorer) for scorer in waiting}
        waiting = [scorer for scorer, name in names.items() if name not in apps or apps[name].status != "RUNNING"]
        if waiting and time.monotonic() > deadline:
            needs = [
                f"{scorer}: min = {pools[scorer].min} x cpus = {pools[scorer].cpus:g}, gpus = {pools[scorer].gpus:g}"
                for scorer in waiting
            ]
            raise RayalignError(
                f"scorers {', '.join(waiting)} were not up after {timeout_s:g} s. Either the cluster has no room "
                f"({'; '.join(needs)}; placement.scorer, or the scorer's own placement: lower these or add nodes), or "
                "loading takes longer (a download? Fetch the weights beforehand)"
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
