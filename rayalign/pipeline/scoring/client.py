"""Who asks: all scorers at once, with retries, a bounded queue and counts. Starting the services: service.py."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from rayalign.config import RewardConfig, ServiceConfig
from rayalign.errors import RayalignError, ScoringError
from rayalign.pipeline.deadline import within
from rayalign.pipeline.scoring.budget import ImageBudget
from rayalign.pipeline.scoring.metrics import ClientMetrics
from rayalign.pipeline.scoring.names import app_name
from rayalign.pipeline.scoring.replica import ScoreAnswer
from rayalign.records import Scores, Standard
from rayalign.rewards.mixture import check_answer, mix, mix_gradients

logger = logging.getLogger(__name__)

FIND_S = 180.0  # a Serve controller that died is up again within seconds
FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.2, 5.0  # doubled in between: a replaced replica needs a few seconds


class Answered(NamedTuple):
    """float32 (B,) of one scorer, NaN where it has no score; its gradients, if asked for; why it did not answer."""

    scores_B: np.ndarray
    grads_BCHW: np.ndarray | None
    reason: str = ""
    queued_s: float = 0.0  # held back before it was asked


class RewardClient:
    """Asks all scorers at once. Cheap to make; finds the services at its first call, in the actor using it.

    Args:
        run: as the services were started with.
        rewards: guiding scorers and their weights.
        service: `timeout_s` of one try, `retries` after the first.
        heldout: scorers measured beside them: in `parts`, never in the total, whose failures cost no pair.

    Attributes:
        standards: of the policy version in use, where rewards are standardised; the user of the client sets them.
        failures: "<scorer>: <reason>" -> images left without a score, after all retries.
        retries: "<scorer>: <reason>" -> further tries made.
    """

    def __init__(
        self, run: str, rewards: Sequence[RewardConfig], service: ServiceConfig, heldout: Sequence[str] = ()
    ) -> None:
        self._run = run
        self.weights = {reward.scorer: reward.weight for reward in rewards}
        self.scorers = [*self.weights, *heldout]
        self.standards: dict[str, Standard] = {}
        self.failures: Counter[str] = Counter()
        self.retries: Counter[str] = Counter()
        self._service = service
        self._handles: dict[str, DeploymentHandle] = {}
        self._budgets = {scorer: ImageBudget(service.max_queued) for scorer in self.scorers}
        self._metrics: dict[str, ClientMetrics] = {}

    async def __call__(self, images_BCHW: np.ndarray, prompts: list[str]) -> Scores:
        """float32 images (B, 3, H, W) in [0, 1] and B prompts -> Scores; an entry that failed holds NaN.

        Raises:
            ValueError: not B images with B prompts.
            RayalignError: a scorer is not served at all, or Ray Serve does not say where.
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
        scores = mix(self.weights, parts, time.perf_counter() - start, self.standards, reasons)
        return replace(scores, queued_s=max(answer.queued_s for answer in answers.values()))

    async def _ask_all(
        self, names: list[str], images_BCHW: np.ndarray, prompts: list[str], with_grad: bool
    ) -> dict[str, Answered]:
        if images_BCHW.ndim != 4 or images_BCHW.shape[1] != 3 or len(images_BCHW) != len(prompts):
            raise ValueError(f"images {images_BCHW.shape} and {len(prompts)} prompts; give (B, 3, H, W) and B prompts")
        if not self._handles:
            # In a thread, as it blocks on the Serve controller.
            self._handles = await asyncio.to_thread(lambda: {name: _find(self._run, name) for name in self.scorers})
            self._metrics = {name: ClientMetrics(self._run, name) for name in self.scorers}
        images_BCHW = np.ascontiguousarray(images_BCHW, dtype=np.float32)  # uint8 would round: other bits than local
        asked = (self._score_in_turn(name, images_BCHW, prompts, with_grad) for name in names)
        return dict(zip(names, await asyncio.gather(*asked), strict=True))

    def close(self) -> None:
        """Lets go of the services. Call before they stop, or the handles log reconnects."""
        for handle in self._handles.values():
            handle.shutdown()
        self._handles = {}

    async def _score_in_turn(
        self, name: str, images_BCHW: np.ndarray, prompts: list[str], with_grad: bool
    ) -> Answered:
        """What it says once the call is let in: no more than `max_queued` images are unanswered at a time."""
        async with self._budgets[name].hold(len(images_BCHW)) as queued_s:
            start = time.perf_counter()
            answer = await self._score(name, images_BCHW, prompts, with_grad)
            self._metrics[name].call(time.perf_counter() - start, queued_s)
        return answer._replace(queued_s=queued_s)

    async def _score(self, name: str, images_BCHW: np.ndarray, prompts: list[str], with_grad: bool) -> Answered:
        """What one scorer says in the end, after retries."""
        num_images, call = len(images_BCHW), uuid.uuid4().hex
        for attempt in range(self._service.retries + 1):
            answer = await self._ask(name, images_BCHW, prompts, with_grad, call)
            if answer.scores_B is not None:
                num_bad = int(np.count_nonzero(~np.isfinite(answer.scores_B)))
                if num_bad:  # an answer, and the same one if asked again
                    self._count_failure(name, "not finite", num_bad, f"{num_bad} of {num_images} scores")
                return Answered(answer.scores_B, answer.grads_BCHW)
            if attempt < self._service.retries:
                self.retries[f"{name}: {answer.reason}"] += 1
                self._metrics[name].retries.inc(tags={"reason": answer.reason})
                await asyncio.sleep(min(FIRST_BACKOFF_S * 2**attempt, MAX_BACKOFF_S))
        self._count_failure(name, answer.reason, num_images, answer.detail)
        return Answered(np.full(num_images, np.nan, dtype=np.float32), None, answer.reason)

    async def _ask(
        self, name: str, images_BCHW: np.ndarray, prompts: list[str], with_grad: bool, call: str
    ) -> ScoreAnswer:
        """One try, at a replica that has not had `call` yet if there is one.

        Faults on the way to the scorer become an answer without scores.
        """
        response = self._handles[name].remote(images_BCHW, prompts, with_grad, call=call)
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
        self._metrics[name].failures.inc(num_images, {"reason": reason})


async def _result(response: Awaitable[ScoreAnswer]) -> ScoreAnswer:
    return await response  # `wait_for` takes coroutines, not any awaitable


def _find(run: str, scorer: str) -> DeploymentHandle:
    name = app_name(run, scorer)
    try:
        return within(FIND_S, f"a client of {name} waits for Ray Serve to find it", lambda: serve.get_app_handle(name))
    except RayServeException as error:
        raise RayalignError(f"run {run} serves no scorer {scorer}; call start_reward_services with it first") from error
