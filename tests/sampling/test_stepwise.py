from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
import torch

from rayalign.config import SamplerConfig
from rayalign.models.text_to_image import TextToImage
from rayalign.records import Scores, Ticket, pair_schema
from rayalign.rewards.mixture import local_score_fn
from rayalign.rewards.protocol import ScoreFn
from rayalign.rewards.stub import StubScorer
from rayalign.sampling.noise import SampleNoise
from rayalign.sampling.pair_table import pair_table
from rayalign.sampling.stepwise import Trajectories, draw_trajectories
from tests.toys import model_of, nudged

PROMPTS = ["a cat", "a dog"]
SHORT = {"num_steps": 8}
BRIGHTNESS = local_score_fn({"stub": (StubScorer(), 1.0)})


@pytest.fixture(scope="module", params=["stub", "toy-sdxl"])
def model(request: pytest.FixtureRequest) -> TextToImage:
    """Unfused, and with a policy that is not the base. 8 steps."""
    model = model_of(request.param, adapters=("policy",), sampler=SHORT | {"tuned_steps": (8, 5, 2)})
    model.weights.load("policy", nudged(model, 1))
    return model


@pytest.fixture(scope="module")
def stub() -> TextToImage:
    return model_of("stub", adapters=("policy",))


def drawing(model: TextToImage, score: ScoreFn, sampler: SamplerConfig, seeds: tuple[int, ...] = (1, 2)) -> Any:
    noise = SampleNoise(seeds, model.latent_shape, model.device)
    return draw_trajectories(model, score, PROMPTS, noise, sampler)


def draw(model: TextToImage, score: ScoreFn, sampler: SamplerConfig, seeds: tuple[int, ...] = (1, 2)) -> Trajectories:
    return asyncio.run(drawing(model, score, sampler, seeds))


def answering(rule: Any) -> ScoreFn:
    """A ScoreFn from a rule: images -> float32 (B,). It yields, so that other tickets get their turn."""

    async def score(images_BCHW: np.ndarray, prompts: list[str]) -> Scores:
        await asyncio.sleep(0)
        total = np.asarray(rule(images_BCHW), dtype=np.float32)
        return Scores(total, {"stub": total})

    return score


@pytest.mark.parametrize(
    ("tuned", "candidates", "calls"),
    [
        ((20, 16, 12, 8, 4), 2, 25),  # 20 steps and one further look ahead at each of 5 tuned
        ((20, 16, 12, 8, 4), 3, 30),
        ((20, 1), 2, 21),  # a candidate of step 1 is clean already
        ((1,), 4, 20),
    ],
)
def test_calls_per_trajectory(stub: TextToImage, tuned: tuple[int, ...], candidates: int, calls: int) -> None:
    sampler = SamplerConfig(tuned_steps=tuned, num_candidates=candidates)
    stub.calls.clear()
    drawn = draw(stub, BRIGHTNESS, sampler)
    assert stub.calls == {"policy": calls * len(PROMPTS)}
    assert drawn.denoiser_calls == sampler.calls_per_trajectory == calls
    assert [pairs.step for pairs in drawn.pairs] == list(tuned)


@pytest.mark.parametrize("candidates", [2, 3])
def test_the_better_candidate_wins_and_goes_on(model: TextToImage, candidates: int) -> None:
    every = SHORT | {"tuned_steps": tuple(range(8, 0, -1)), "num_candidates": candidates}
    drawn = draw(model, BRIGHTNESS, SamplerConfig(**every))
    text = model.encode(PROMPTS)
    scorer = StubScorer()
    for pairs, following in zip(drawn.pairs, [*drawn.pairs[1:], None], strict=True):
        rewards = np.stack([scores.total_B for scores in pairs.scores_BK])
        assert (rewards.max(0) > rewards.min(0)).all()
        assert (pairs.pairing.winner.numpy() == rewards.argmax(0)).all()
        assert (pairs.pairing.loser.numpy() == rewards.argmin(0)).all()
        # Scored by the clean image predicted from the candidate, at the timestep where it stands.
        for latents, expected in ((pairs.winner, rewards.max(0)), (pairs.loser, rewards.min(0))):
            clean = latents
            if pairs.step > 1:
                t = torch.full((2,), model.kernel.timestep(pairs.step - 1))
                with torch.no_grad():
                    clean = model.kernel.clean_latent(model.denoise(latents, t, text), latents, t)[0]
            images = model.decode(clean).numpy()
            np.testing.assert_allclose(scorer.score(images, PROMPTS), expected, atol=2e-6)
        if following is not None:
            assert torch.equal(following.x_t, pairs.winner)
    finished = scorer.score(model.decode(drawn.pairs[-1].winner).numpy(), PROMPTS)
    np.testing.assert_array_equal(drawn.final.total_B, finished)


def test_candidates_come_from_the_kernel_at_x_t(model: TextToImage) -> None:
    """(candidate - mean) / std is the noise that was drawn: x_T first, then one a candidate."""
    drawn = draw(model, BRIGHTNESS, SamplerConfig(**SHORT, tuned_steps=(8,)))
    pairs, noise = drawn.pairs[0], SampleNoise((1, 2), model.latent_shape, model.device)
    assert torch.equal(noise.draw(), pairs.x_t)
    t, t_prev = torch.full((2,), pairs.timestep), torch.full((2,), pairs.timestep_prev)
    with torch.no_grad():
        prediction = model.denoise(pairs.x_t, t, model.encode(PROMPTS))
    mean, std, _ = model.kernel.transition(prediction, pairs.x_t, t, t_prev)
    candidates = torch.stack([mean + std.reshape(-1, 1, 1, 1) * noise.draw() for _ in range(2)])
    rows = torch.arange(2)
    torch.testing.assert_close(pairs.winner, candidates[pairs.pairing.winner, rows], atol=1e-6, rtol=0)
    torch.testing.assert_close(pairs.loser, candidates[pairs.pairing.loser, rows], atol=1e-6, rtol=0)


def rows_of(drawn: Trajectories) -> list[dict[str, Any]]:
    return pair_table(drawn, Ticket(7, 4), 1, ["stub"]).to_pylist()


def test_ties_are_no_preference(stub: TextToImage) -> None:
    drawn = draw(stub, answering(lambda images: np.full(len(images), 0.5)), SamplerConfig(tuned_steps=(20, 4)))
    assert [row["status"] for row in rows_of(drawn)] == ["tie"] * 4
    assert all(torch.isfinite(pairs.winner).all() for pairs in drawn.pairs)
    assert not any(torch.equal(pairs.winner, pairs.loser) for pairs in drawn.pairs)


def test_a_failed_score_costs_one_pair_and_not_the_trajectory(stub: TextToImage) -> None:
    asked = []

    def fails_once(images: np.ndarray) -> np.ndarray:
        total = images.mean((1, 2, 3))
        asked.append(len(images))
        if len(asked) == 1:
            total[2] = np.nan  # candidate 1 of sample 0, at the first tuned step
        return total

    drawn = draw(stub, answering(fails_once), SamplerConfig(tuned_steps=(20, 4)))
    assert asked == [4, 4, 2]  # two candidates a sample, then the finished images
    found = {(row["step"], row["sample"]): row for row in rows_of(drawn)}
    assert {key: row["status"] for key, row in found.items()} == {
        (20, 0): "score_failed",
        (20, 1): "kept",
        (4, 0): "kept",
        (4, 1): "kept",
    }
    assert np.isnan(found[20, 0]["reward_loser"])
    assert np.isfinite([found[4, 0]["reward_winner"], found[4, 0]["final_reward"]]).all()


def test_a_ticket_does_not_depend_on_the_tickets_beside_it(model: TextToImage) -> None:
    sampler = SamplerConfig(**SHORT, tuned_steps=(8, 5, 2))
    score = answering(lambda images: images.mean((1, 2, 3)))

    async def side_by_side() -> list[Trajectories]:
        tickets = [drawing(model, score, sampler, seeds) for seeds in ((5, 6), (1, 2), (7, 8))]
        return await asyncio.gather(*tickets)

    alone, beside = draw(model, score, sampler), asyncio.run(side_by_side())[1]
    tables = [pair_table(one, Ticket(7, 4), 1, ["stub"]) for one in (alone, beside)]
    clock = ["ticket_rollout_s", "ticket_scoring_s"]
    assert tables[0].drop(clock).equals(tables[1].drop(clock))


def test_no_call_builds_a_graph(model: TextToImage) -> None:
    """A `no_grad` around a coroutine ends before its body begins; this one must hold inside, and leak nowhere."""
    seen: list[bool] = []
    hook = model.denoiser.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    sampler = SamplerConfig(**SHORT, tuned_steps=(8, 2))
    score = answering(lambda images: images.mean((1, 2, 3)))

    async def side_by_side() -> list[Trajectories]:
        return await asyncio.gather(*[drawing(model, score, sampler) for _ in range(2)])

    try:
        assert torch.is_grad_enabled()
        drawn = asyncio.run(side_by_side())
        assert torch.is_grad_enabled()
    finally:
        hook.remove()
    assert len(seen) == 2 * 10
    assert not any(seen)
    assert not any(value.requires_grad for one in drawn for pairs in one.pairs for value in (pairs.x_t, pairs.winner))


def test_the_table_has_the_schema_and_every_pair(model: TextToImage) -> None:
    first, second = StubScorer(), StubScorer("red")
    score = local_score_fn({"a": (first, 1.0), "b": (second, 0.5)})
    drawn = draw(model, score, SamplerConfig(**SHORT, tuned_steps=(8, 3)))
    table = pair_table(drawn, Ticket(7, 4), 1, ["b", "a"])
    assert table.schema.equals(pair_schema(model.latent_shape, ["b", "a"]), check_metadata=True)
    rows = table.to_pylist()
    assert [(row["step"], row["sample"]) for row in rows] == [(8, 0), (8, 1), (3, 0), (3, 1)]
    kernel = model.kernel
    for row in rows:
        assert (row["iteration"], row["slot"], row["policy_version"], row["guided"]) == (1, 3, 1, False)
        assert row["timestep"] == kernel.timestep(row["step"])
        assert row["timestep_prev"] == kernel.timestep(row["step"] - 1)
        assert row["prompt"] == PROMPTS[row["sample"]]
        assert row["denoiser_calls"] == 10
        b, a = row["scores_winner"]
        assert row["reward_winner"] == pytest.approx(a + 0.5 * b, abs=1e-6)
        b, a = row["final_scores"]
        assert row["final_reward"] == pytest.approx(a + 0.5 * b, abs=1e-6)
        assert row["reward_winner"] > row["reward_loser"]
    np.testing.assert_array_equal(np.array(rows[3]["winner"]), drawn.pairs[1].winner[1].numpy().reshape(-1))
