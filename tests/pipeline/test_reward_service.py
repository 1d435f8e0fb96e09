from __future__ import annotations

import asyncio
import re
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from ray import serve

from rayalign.config import PoolConfig, RewardConfig, ServiceConfig
from rayalign.errors import ConfigError, RayalignError, ScoringError
from rayalign.pipeline.scoring.batcher import Call
from rayalign.pipeline.scoring.names import app_name, store_name
from rayalign.pipeline.scoring.replica import ScoreReplica
from rayalign.pipeline.scoring.service import (
    RewardClient,
    end_left_behind,
    scale_of,
    start_reward_services,
    stop_reward_services,
)
from rayalign.pipeline.scoring.text_store import NAMESPACE, stop_text_store, text_encodings
from rayalign.records import Scores
from rayalign.rewards.jpeg import JpegScorer
from rayalign.rewards.table import build_scorer

ALIAS = "rayalign.rewards.stub:StubScorer"  # a second scorer of the same class
RUN = "a run"
QUICK = ServiceConfig(upscale_delay_s=0.3, downscale_delay_s=1.0, retries=1)
LIGHT = PoolConfig(cpus=0.1)


@pytest.fixture(scope="module")
def neighbour(ray_cluster: None) -> Iterator[None]:
    """Somebody else's Serve application, which must survive ours. Keeps Serve up in between, too: quicker."""
    serve.start(proxy_location="Disabled")
    theirs = serve.deployment(ScoreReplica).options(ray_actor_options={"num_cpus": 0.1})
    handle = serve.run(theirs.bind("theirs", reward("stub"), QUICK, 1), name="neighbour")
    yield
    assert handle.remote(pictures(1), [""]).result(timeout_s=30).scores_B is not None
    handle.shutdown()
    serve.shutdown()


@contextmanager
def served(
    rewards: Sequence[RewardConfig], pool: PoolConfig = LIGHT, service: ServiceConfig = QUICK, run: str = RUN
) -> Iterator[None]:
    start_reward_services(run, rewards, pool, service, cpu_threads=1)
    try:
        yield
    finally:
        stop_reward_services(run)


@contextmanager
def asking(client: RewardClient) -> Iterator[RewardClient]:
    try:
        yield client
    finally:
        client.close()


def reward(scorer: str, weight: float = 1.0, **options: object) -> RewardConfig:
    return RewardConfig(scorer=scorer, weight=weight, options=options)


def pictures(count: int, size: int = 16) -> np.ndarray:
    return np.random.default_rng(count).random((count, 3, size, size), dtype=np.float32)


@ray.remote(num_cpus=0.1)
class Asker:
    """As a rollout actor does: builds its own client from settings."""

    def __init__(self, rewards: list[RewardConfig], service: ServiceConfig) -> None:
        self.client = RewardClient(RUN, rewards, service)

    async def ask(self, images: np.ndarray, prompts: list[str]) -> Scores:
        return await self.client(images, prompts)


def test_two_scorers_weighted_from_an_actor(neighbour: None) -> None:
    rewards = [reward("stub", 2.0), reward("jpeg", 0.5)]
    images = pictures(3)
    with served(rewards):
        scores = ray.get(Asker.remote(rewards, QUICK).ask.remote(images, ["a", "b", "c"]), timeout=60)
    bright, small = build_scorer(rewards[0]).score(images, []), JpegScorer().score(images, [])
    np.testing.assert_array_equal(scores.parts["stub"], bright)  # the same bits as without Ray
    np.testing.assert_array_equal(scores.parts["jpeg"], small)
    np.testing.assert_allclose(scores.total_B, 2 * bright + 0.5 * small, rtol=1e-6)
    assert scores.seconds > 0


def test_failures_are_nan_and_counted(neighbour: None) -> None:
    rewards = [reward("jpeg"), reward("stub", fail="raise")]
    jpeg, raises = rewards
    images, prompts = pictures(2), ["", ""]

    async def ask(client: RewardClient) -> Scores:
        with asking(client):
            return await client(images, prompts)

    with served(rewards):
        client = RewardClient(RUN, [jpeg, raises], QUICK)
        scores = asyncio.run(ask(client))
        assert scores.failed_B.all()
        assert np.isnan(scores.parts["stub"]).all()
        assert np.isfinite(scores.parts["jpeg"]).all()
        assert client.failures == {"stub: raised RuntimeError": 2}  # images
        assert client.retries == {"stub: raised RuntimeError": 1}  # tries

        client = RewardClient(RUN, [jpeg], QUICK, heldout=["stub"])
        scores = asyncio.run(ask(client))
        assert np.isfinite(scores.total_B).all()
        assert np.isnan(scores.parts["stub"]).all()

    short = reward("stub", fail="short")
    with served([short]):
        client = RewardClient(RUN, [short], QUICK)
        assert asyncio.run(ask(client)).failed_B.all()
        assert client.failures == {"stub: wrong length": 2}


def test_nan_stays_nan_and_slow_is_a_timeout(neighbour: None) -> None:
    nan, slow = reward("stub", fail="nan"), reward(ALIAS, seconds=3.0)
    hasty = ServiceConfig(timeout_s=0.5, retries=0)

    async def ask(client: RewardClient) -> Scores:
        with asking(client):
            return await client(pictures(2), ["", ""])

    with served([nan, slow]):
        client = RewardClient(RUN, [nan], QUICK)
        assert asyncio.run(ask(client)).failed_B.tolist() == [True, False]
        assert client.failures == {"stub: not finite": 1}
        assert not client.retries

        client = RewardClient(RUN, [slow], hasty)
        assert asyncio.run(ask(client)).failed_B.all()
        assert client.failures == {f"{ALIAS}: timeout": 2}


def test_a_client_holds_back_what_is_more_than_it_may_have_unanswered(neighbour: None) -> None:
    slow = reward("stub", seconds=0.2)
    bounded = ServiceConfig(max_batch=1, max_queued=4)

    async def ask(client: RewardClient) -> list[Scores]:
        with asking(client):
            return await asyncio.gather(*(client(pictures(2), ["", ""]) for _ in range(4)))

    with served([slow]):
        scores = asyncio.run(ask(RewardClient(RUN, [slow], bounded)))
    # Two calls of two images at a time; of each pair the other waits at the replica for 0.2 s and more.
    waited = sorted(one.queued_s for one in scores)
    assert waited[:2] == [0, 0]
    assert 0.15 < waited[2] <= waited[3]
    assert all(one.queued_s < one.seconds for one in scores)


def test_same_bits_batched_or_single(neighbour: None) -> None:
    torch.set_num_threads(1)  # as the replicas: two threads sum in another order
    toy = reward("toy-clip")
    local = build_scorer(toy)
    calls = [(pictures(count, 32), [f"a red circle {count}"] * count) for count in (1, 3, 2, 5, 1, 4)]

    async def ask() -> tuple[list[Scores], list[Scores]]:
        with asking(RewardClient(RUN, [toy], gathering)) as client:
            alone = [await client(*call) for call in calls]
            return alone, await asyncio.gather(*(client(*call) for call in calls))

    gathering = ServiceConfig(batch_wait_s=0.3)  # long enough for all six to be scored as one batch
    with served([toy], service=gathering):
        alone, together = asyncio.run(ask())
    for call, one, many in zip(calls, alone, together, strict=True):
        np.testing.assert_array_equal(one.total_B, many.total_B)
        np.testing.assert_array_equal(one.total_B, local.score(*call))


def test_two_replicas_encode_each_prompt_once_and_each_its_own_without_the_store(
    neighbour: None, tmp_path: Path
) -> None:
    counting = reward("tests.pipeline.served_scorers:LongestPrompt", folder=str(tmp_path), seconds=0.02)
    two = PoolConfig(min=2, max=2, cpus=0.1)

    async def ask(names: Sequence[str]) -> None:
        """Each prompt four times, one image a call, all at once."""
        prompts = [f"{name * 3} {number}" for name in names for number in range(6)] * 4
        answers = await asyncio.gather(*(client(pictures(1), [prompt]) for prompt in prompts))
        assert [scores.total_B[0] for scores in answers] == [len(prompt) for prompt in prompts]

    def left(what: str) -> list[tuple[str, str]]:
        """(process, text) of each file."""
        return [(file.name.split("-")[1], file.read_text()) for file in tmp_path.glob(f"{what}-*")]

    with served([counting], two, ServiceConfig(max_batch=1)):
        client = RewardClient(RUN, [counting], ServiceConfig(max_batch=1))
        with asking(client):
            asyncio.run(ask(["red", "blue"]))
            scored = Counter(process for process, _ in left("score"))
            assert sorted(count > 1 for count in scored.values()) == [True, True]  # 1: the trial of one that is new
            ours = [text for _, text in left("text") if text[-1].isdigit()]  # not the trial's
            assert len(ours) == len(set(ours)) == 12
            assert text_encodings(RUN) == {counting.scorer: {"distinct_prompts": 12, "forwards": 12}}

            ray.kill(ray.get_actor(store_name(RUN), NAMESPACE))
            asyncio.run(ask(["green"]))
            greens = [both for both in left("text") if both[1].startswith("green")]
            assert len({text for _, text in greens}) == 6
            assert len({process for process, _ in greens}) == 2
            assert len(greens) == len(set(greens)) > 6  # once in each that was asked
            assert not client.failures
            assert text_encodings(RUN) == {}


def test_prometheus_hears_of_calls_batches_texts_and_replicas(neighbour: None) -> None:
    run, toy, broken = "measured", reward("toy-clip"), reward("stub", fail="raise")

    async def ask(client: RewardClient, times: int) -> None:
        with asking(client):
            calls = (client(pictures(3, 32), ["a red circle", "a blue square", "a"]) for _ in range(times))
            await asyncio.gather(*calls)

    of_toy = {"replicas": 1.0, "queue_images": 0.0, "batch_images_sum": 15.0, "text_encodings_total": 3.0}
    of_toy |= {"call_seconds_count": 5.0}
    of_broken = {"failures_total of raised RuntimeError": 3.0, "retries_total of raised RuntimeError": 1.0}
    expected = {f"toy-clip {name}": value for name, value in of_toy.items()}
    expected |= {f"stub {name}": value for name, value in of_broken.items()}  # images, and tries
    with served([toy, broken], run=run):
        asyncio.run(ask(RewardClient(run, [broken], QUICK), 1))
        asyncio.run(ask(RewardClient(run, [toy], ServiceConfig(max_queued=3)), 5))
        deadline = time.monotonic() + 60
        while not expected.items() <= (seen := metrics_of(run)).items() and time.monotonic() < deadline:
            time.sleep(0.5)  # every process hands its own on each 10 s
    assert {name: seen.get(name) for name in expected} == expected
    assert seen["toy-clip queued_seconds_total"] > 0


def metrics_of(run: str) -> dict[str, float]:
    """Each `ray_rayalign_score_<name>` at this node's metrics port as "<scorer> <name>", with " of <reason>" behind it
    where it has that tag; {} before the port is open.
    """
    address = f"http://127.0.0.1:{ray.nodes()[0]['MetricsExportPort']}/metrics"
    try:
        lines = urllib.request.urlopen(address, timeout=5).read().decode().splitlines()
    except OSError:
        return {}
    ours = [line.removeprefix("ray_rayalign_score_") for line in lines if f'run="{run}"' in line]
    found = {}
    for line in ours:
        tags = dict(re.findall(r'(\w+)="([^"]*)"', line))
        reason = f" of {tags['reason']}" if "reason" in tags else ""
        found[f"{tags['scorer']} {re.split('[{ ]', line)[0]}{reason}"] = float(line.split()[-1])
    return found


def test_a_further_try_goes_to_another_replica(neighbour: None, tmp_path: Path) -> None:
    broken = reward("tests.pipeline.served_scorers:BrokenInOneProcess", folder=str(tmp_path))
    service = ServiceConfig(max_batch=1, retries=1)

    async def ask() -> list[Scores]:
        return [await client(pictures(1), [""]) for _ in range(20)]

    with served([broken], PoolConfig(min=2, max=2, cpus=0.1), service):
        client = RewardClient(RUN, [broken], service)
        with asking(client):
            answers = asyncio.run(ask())
    raised = len(list(tmp_path.glob("raised-*")))
    assert raised >= 3  # about half of 20, half of which would fail for good if the replica were drawn anew
    assert client.retries == {f"{broken.scorer}: raised RuntimeError": raised}
    assert not client.failures
    assert not any(scores.failed_B.any() for scores in answers)


def test_a_killed_replica_s_calls_are_asked_again(neighbour: None) -> None:
    slow = reward("stub", seconds=1.0)

    async def ask(client: RewardClient) -> list[Scores]:
        with asking(client):
            await client(pictures(1), [""])
            calls = [asyncio.create_task(client(pictures(2), ["", ""])) for _ in range(4)]
            await asyncio.sleep(0.4)
            ray.kill(_replica("stub"))
            return await asyncio.gather(*calls)

    client = RewardClient(RUN, [slow], ServiceConfig(retries=3))
    with served([slow]):
        answers = asyncio.run(ask(client))
    expected = build_scorer(reward("stub")).score(pictures(2), [])
    for scores in answers:
        np.testing.assert_array_equal(scores.total_B, expected)
    assert client.retries["stub: replica died"] >= 1
    assert not client.failures


def test_a_replica_that_hangs_is_replaced(neighbour: None, tmp_path: Path) -> None:
    hangs = reward("tests.pipeline.served_scorers:HangsOnce", folder=str(tmp_path))
    hasty = ServiceConfig(timeout_s=1.0, retries=20)
    white = np.ones((2, 3, 16, 16), np.float32)
    client = RewardClient(RUN, [hangs], hasty)

    async def ask() -> Scores:
        with asking(client):
            return await client(white, ["", ""])

    with served([hangs], service=hasty):
        scores = asyncio.run(ask())
    np.testing.assert_array_equal(scores.total_B, [1, 1])
    assert (tmp_path / "hung").exists()
    assert len(list(tmp_path.glob("answered-*"))) == 1
    assert client.retries[f"{hangs.scorer}: timeout"] >= 2  # it is given twice the time of a call
    assert not client.failures


def test_a_replica_says_that_its_batch_hangs() -> None:
    replica = ScoreReplica(RUN, reward("stub"), ServiceConfig(timeout_s=0.05), cpu_threads=1)
    let_go = threading.Event()

    class Held:
        def score(self, images_BCHW: np.ndarray, prompts: list[str]) -> np.ndarray:
            let_go.wait(10)
            return images_BCHW.mean(axis=(1, 2, 3))

    async def ask() -> None:
        call = asyncio.create_task(replica(pictures(1), [""]))
        await asyncio.sleep(0.02)
        replica.check_health()  # busy, and not for long
        await asyncio.sleep(0.12)
        with pytest.raises(ScoringError, match=r"more than 2 x service.timeout_s = 0\.1 s"):
            replica.check_health()
        let_go.set()
        await call
        replica.check_health()

    replica.check_health()  # idle
    replica._scorer = Held()
    asyncio.run(ask())


def _replica(scorer: str) -> ray.actor.ActorHandle:
    names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
    (name,) = (name for name in names if f"{app_name(RUN, scorer)}#" in name)
    return ray.get_actor(name, namespace="serve")


def test_a_burst_grows_the_service_and_idling_shrinks_it(neighbour: None) -> None:
    slow = reward("stub", seconds=0.1)
    service = ServiceConfig(max_batch=1, target_ongoing=1.0, upscale_delay_s=0.3, downscale_delay_s=1.0)
    images = pictures(1)

    async def burst(client: RewardClient) -> int:
        """12 callers, each asking again and again until the service has grown; how many calls were answered."""
        deadline = time.monotonic() + 30
        answered = 0

        async def caller() -> None:
            nonlocal answered
            while not grown.is_set() and time.monotonic() < deadline:
                assert not (await client(images, [""])).failed_B.any()
                answered += 1

        grown = asyncio.Event()
        callers = [asyncio.create_task(caller()) for _ in range(12)]
        while not grown.is_set() and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
            if await asyncio.to_thread(scale_of, RUN, "stub") == 3:
                grown.set()
        await asyncio.gather(*callers)
        return answered

    with (
        served([slow], PoolConfig(min=1, max=3, cpus=0.1), service),
        asking(RewardClient(RUN, [slow], service)) as client,
    ):
        assert scale_of(RUN, "stub") == 1
        start = time.monotonic()
        assert asyncio.run(burst(client)) > 12
        assert scale_of(RUN, "stub") == 3
        print(f"grew to 3 in {time.monotonic() - start:.1f} s")
        start = time.monotonic()
        while scale_of(RUN, "stub") != 1 and time.monotonic() < start + 30:
            time.sleep(0.2)
        print(f"shrank to 1 in {time.monotonic() - start:.1f} s")
        assert scale_of(RUN, "stub") == 1


def test_a_scorer_has_replicas_of_its_own_number(neighbour: None) -> None:
    own = RewardConfig(scorer=ALIAS, placement=PoolConfig(min=2, max=2, cpus=0.1))
    with served([reward("stub"), own]):
        assert (scale_of(RUN, "stub"), scale_of(RUN, ALIAS)) == (1, 2)


def test_a_constructor_that_fails_says_why(neighbour: None) -> None:
    start = time.monotonic()
    with pytest.raises(RayalignError, match="stub did not start: RuntimeError: the stub was asked to fail"):
        start_reward_services(RUN, [reward("stub", fail="construct")], LIGHT, QUICK, cpu_threads=1)
    assert time.monotonic() - start < 60
    assert scale_of(RUN, "stub") == 0


def test_no_room_is_an_error_in_bounded_time(neighbour: None) -> None:
    with pytest.raises(RayalignError, match=r"\(stub: min = 1 x cpus = 99, .*lower these or add nodes"):
        start_reward_services(RUN, [reward("stub")], PoolConfig(cpus=99), QUICK, cpu_threads=1, start_timeout_s=1)


def test_refused_before_anything_starts(neighbour: None) -> None:
    with pytest.raises(ConfigError, match="did you mean jpeg"):
        start_reward_services(RUN, [reward("jpg")], LIGHT, QUICK, cpu_threads=1)
    client = RewardClient(RUN, [reward("jpeg")], QUICK)
    with pytest.raises(RayalignError, match="serves no scorer jpeg; call start_reward_services"):
        asyncio.run(client(pictures(1), [""]))
    with pytest.raises(ValueError, match="B prompts"):
        asyncio.run(client(pictures(2), [""]))


class Picky:
    """Refuses a call in which any prompt is "bad"."""

    def score(self, images_BCHW: np.ndarray, prompts: list[str]) -> np.ndarray:
        if "bad" in prompts:
            raise ValueError("bad prompt")
        return images_BCHW.mean(axis=(1, 2, 3))


def test_a_bad_call_does_not_take_its_batch_with_it() -> None:
    replica = ScoreReplica(RUN, reward("stub"), QUICK, cpu_threads=1)
    replica._scorer = Picky()  # type: ignore[assignment]
    calls = [Call(pictures(2), ["", ""]), Call(pictures(1), ["bad"]), Call(pictures(3, size=8), [""] * 3)]
    first, bad, small = replica.answer(calls)
    np.testing.assert_array_equal(first.scores_B, pictures(2).mean(axis=(1, 2, 3)))
    assert bad.scores_B is None
    assert bad.reason == "raised ValueError"
    assert bad.detail == "bad prompt"
    assert small.scores_B is not None
    assert small.scores_B.shape == (3,)


class Sizes:
    """Notes how many images it is given at once."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def score(self, images_BCHW: np.ndarray, prompts: list[str]) -> np.ndarray:
        assert len(images_BCHW) == len(prompts)
        self.seen.append(len(images_BCHW))
        return images_BCHW.mean(axis=(1, 2, 3))

    def score_and_grad(self, images_BCHW: np.ndarray, prompts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        return self.score(images_BCHW, prompts), 2 * images_BCHW


def test_a_call_larger_than_a_batch_is_scored_in_parts() -> None:
    replica = ScoreReplica(RUN, reward("stub"), ServiceConfig(max_batch=4), cpu_threads=1)
    replica._scorer = Sizes()
    (answer,) = replica.answer([Call(pictures(10), [""] * 10)])
    np.testing.assert_array_equal(answer.scores_B, pictures(10).mean(axis=(1, 2, 3)))
    (graded,) = replica.answer([Call(pictures(10), [""] * 10, with_grad=True)])
    np.testing.assert_array_equal(graded.grads_BCHW, 2 * pictures(10))
    assert replica._scorer.seen == [4, 4, 2] * 2


def test_app_names_are_apart_and_stable() -> None:
    assert app_name("first-1a", "toy-clip") == "rayalign-score.first-1a.toy-clip"
    names = {app_name(run, scorer) for run in ("r", "r.x", "r-x") for scorer in ("a.b:C", "a-b-C", "a_b:C")}
    assert len(names) == 9
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzC0123456789-.") for name in names)
    assert not app_name("r-x", "stub").startswith(app_name("r"))


def test_two_runs_share_nothing_and_end_only_their_own(neighbour: None) -> None:
    mine, theirs = reward("stub"), reward("stub", rule="red")
    images = pictures(2)

    async def ask(run: str) -> np.ndarray:
        with asking(RewardClient(run, [mine], QUICK)) as client:
            return (await client(images, ["", ""])).total_B

    start_reward_services("other", [theirs], LIGHT, QUICK, cpu_threads=1)
    with served([mine]):
        np.testing.assert_array_equal(asyncio.run(ask("other")), build_scorer(theirs).score(images, []))
        np.testing.assert_array_equal(asyncio.run(ask(RUN)), build_scorer(mine).score(images, []))
    assert (scale_of(RUN, "stub"), scale_of("other", "stub")) == (0, 1)
    stop_text_store("other")  # as where its process died
    end_left_behind()
    assert scale_of("other", "stub") == 0
