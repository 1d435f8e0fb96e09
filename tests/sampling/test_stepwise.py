from __future__ import annotations

import asyncio
import itertools
from typing import Any

import numpy as np
import pytest
import torch

from rayalign.config import StepwisePairs
from rayalign.models.text_to_image import TextToImage
from rayalign.records import Ticket, pair_schema
from rayalign.rewards.local import LocalScoreFn
from rayalign.rewards.protocol import ScoreFn
from rayalign.rewards.stub import StubScorer
from rayalign.sampling.drawn import Drawn, Rows
from rayalign.sampling.noise import SampleNoise
from rayalign.sampling.pair_table import pair_table
from rayalign.sampling.sources import draw_stepwise
from tests.sampling.scores import BRIGHTNESS, Recording, answering
from tests.toys import model_of, nudged

PROMPTS = ["a cat", "a dog"]
SHORT = {"num_steps": 8}
EVERY_THIRD = StepwisePairs(tuned_steps=(8, 5, 2))


@pytest.fixture(scope="module", params=["stub", "toy-sdxl"])
def model(request: pytest.FixtureRequest) -> TextToImage:
    """Unfused, and with a policy that is not the base. 8 steps."""
    model = model_of(request.param, ("policy",), sampler=SHORT, pairs=EVERY_THIRD.model_dump())
    model.weights.load("policy", nudged(model, 1))
    return model


@pytest.fixture(scope="module")
def stub() -> TextToImage:
    return model_of("stub", adapters=("policy",))


def drawing(model: TextToImage, score: ScoreFn, pairs: StepwisePairs, seeds: tuple[int, ...] = (1, 2)) -> Any:
    noise = SampleNoise(seeds, model.latent_shape, model.device)
    return draw_stepwise(model, score, PROMPTS, noise, pairs, annotated=False)


def draw(model: TextToImage, score: ScoreFn, pairs: StepwisePairs, seeds: tuple[int, ...] = (1, 2)) -> Drawn:
    return asyncio.run(drawing(model, score, pairs, seeds))


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
    pairs = StepwisePairs(tuned_steps=tuned, num_candidates=candidates)
    stub.calls.clear()
    drawn = draw(stub, BRIGHTNESS, pairs)
    assert stub.calls == {"policy": calls * len(PROMPTS)}
    assert drawn.denoiser_calls == pairs.calls_per_trajectory(20) == calls
    assert drawn.trajectories == 1
    assert [rows.step for rows in drawn.rows] == list(tuned)


@pytest.mark.parametrize("candidates", [2, 3])
def test_the_better_candidate_wins_and_goes_on(model: TextToImage, candidates: int) -> None:
    every = StepwisePairs(tuned_steps=tuple(range(8, 0, -1)), num_candidates=candidates)
    score, scorer = Recording(), StubScorer()
    drawn = draw(model, score, every)
    text = model.encode(PROMPTS)
    for number, (rows, following) in enumerate(zip(drawn.rows, [*drawn.rows[1:], None], strict=True)):
        rewards, latents = score.rewards_KB(number), rows.latents
        assert len(rewards) == candidates
        assert (rewards.max(0) > rewards.min(0)).all()
        np.testing.assert_array_equal(rows.winner.total_B, rewards.max(0))
        np.testing.assert_array_equal(rows.loser.total_B, rewards.min(0))
        # Scored by the clean image predicted from the candidate, at the timestep where it stands.
        for side, expected in (("winner", rewards.max(0)), ("loser", rewards.min(0))):
            clean = latents[side]
            if rows.step > 1:
                t = torch.full((2,), model.kernel.timestep(rows.step - 1))
                with torch.no_grad():
                    clean = model.kernel.clean_latent(model.denoise(clean, t, text), clean, t)[0]
            images = model.decode(clean).numpy()
            np.testing.assert_allclose(scorer.score(images, PROMPTS), expected, atol=2e-6)
        if following is not None:
            assert torch.equal(following.latents["x_t"], latents["winner"])
    finished = scorer.score(model.decode(drawn.rows[-1].latents["winner"]).numpy(), PROMPTS)
    np.testing.assert_array_equal(drawn.final.total_B, finished)


def at(rows: Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """t and t_prev of both samples."""
    return torch.full((2,), rows.timestep), torch.full((2,), rows.timestep_prev)


def test_candidates_come_from_the_kernel_at_x_t(model: TextToImage) -> None:
    """(candidate - mean) / std is the noise that was drawn: x_T first, then one a candidate."""
    score = Recording()
    rows = draw(model, score, StepwisePairs(tuned_steps=(8,))).rows[0]
    noise = SampleNoise((1, 2), model.latent_shape, model.device)
    latents, (t, t_prev) = rows.latents, at(rows)
    assert torch.equal(noise.draw(), latents["x_t"])
    with torch.no_grad():
        prediction = model.denoise(latents["x_t"], t, model.encode(PROMPTS))
    mean, std, _ = model.kernel.transition(prediction, latents["x_t"], t, t_prev)
    candidates = torch.stack([mean + std.reshape(-1, 1, 1, 1) * noise.draw() for _ in range(2)])
    rewards, both = score.rewards_KB(0), torch.arange(2)
    torch.testing.assert_close(latents["winner"], candidates[rewards.argmax(0), both], atol=1e-6, rtol=0)
    torch.testing.assert_close(latents["loser"], candidates[rewards.argmin(0), both], atol=1e-6, rtol=0)


def test_a_random_candidate_goes_on_whoever_wins(model: TextToImage) -> None:
    """SPO: best against worst is the pair; which of K = 4 goes on is a draw of the sample's own."""
    spo = StepwisePairs(tuned_steps=tuple(range(8, 0, -1)), num_candidates=4, continuation="random")
    drawn, noise = draw(model, Recording(), spo), SampleNoise((1, 2), model.latent_shape, model.device)
    noise.draw()
    text, chosen = model.encode(PROMPTS), []
    for rows, following in itertools.pairwise(drawn.rows):
        (t, t_prev), x_t = at(rows), rows.latents["x_t"]
        with torch.no_grad():
            mean, std, _ = model.kernel.transition(model.denoise(x_t, t, text), x_t, t, t_prev)
        candidates = torch.stack([mean + std.reshape(-1, 1, 1, 1) * noise.draw() for _ in range(4)])
        onward = noise.choose(4)
        expected = candidates[onward, torch.arange(2)]
        torch.testing.assert_close(following.latents["x_t"], expected, atol=1e-5, rtol=0)
        chosen += [
            [torch.allclose(expected[row], rows.latents[side][row], atol=1e-5) for side in ("winner", "loser")]
            for row in range(2)
        ]
    # Of 14 draws some go on with the winner, some with the loser, some with one in between.
    won, lost = np.array(chosen).sum(0)
    assert 0 < won < 14
    assert 0 < lost < 14
    assert won + lost < 14


def test_the_draw_of_who_goes_on_is_uniform() -> None:
    noise = SampleNoise(range(600), (1, 1, 1), torch.device("cpu"))
    noise.draw()
    counts = torch.bincount(noise.choose(3), minlength=3)
    # 600 thirds: mean 200, standard deviation sqrt(600 / 3 x 2 / 3) = 11.5; five of them are 58.
    assert counts.sum() == 600
    assert (counts - 200).abs().max() < 58


def test_a_gap_too_small_drops_the_pair_and_not_the_trajectory(stub: TextToImage) -> None:
    """min_gap itself is too small: SPO keeps what is above."""
    rewards = np.array([0.5, 0.5, 0.75, 0.625], dtype=np.float32)  # candidate 0 of both samples, then candidate 1
    score = answering(lambda images: rewards[: len(images)])
    # Gaps 0.25 and 0.125.
    for min_gap, expected in (
        (0.0, ["kept", "kept"]),
        (0.125, ["kept", "small_gap"]),
        (0.2, ["kept", "small_gap"]),
        (0.25, ["small_gap"] * 2),
    ):
        drawn = draw(stub, score, StepwisePairs(tuned_steps=(20, 4), min_gap=min_gap))
        assert [rows.status for rows in drawn.rows] == [expected] * 2
        assert torch.isfinite(drawn.rows[1].latents["winner"]).all()


def rows_of(drawn: Drawn) -> list[dict[str, Any]]:
    return pair_table(drawn, Ticket(7, 4), 1, ["stub"], "stepwise").to_pylist()


def test_ties_are_no_preference(stub: TextToImage) -> None:
    drawn = draw(stub, answering(lambda images: np.full(len(images), 0.5)), StepwisePairs(tuned_steps=(20, 4)))
    assert [row["status"] for row in rows_of(drawn)] == ["tie"] * 4
    assert all(torch.isfinite(rows.latents["winner"]).all() for rows in drawn.rows)
    assert not any(torch.equal(rows.latents["winner"], rows.latents["loser"]) for rows in drawn.rows)


def test_a_failed_score_costs_one_pair_and_not_the_trajectory(stub: TextToImage) -> None:
    asked = []

    def fails_once(images: np.ndarray) -> np.ndarray:
        total = images.mean((1, 2, 3))
        asked.append(len(images))
        if len(asked) == 1:
            total[2] = np.nan  # candidate 1 of sample 0, at the first tuned step
        return total

    drawn = draw(stub, answering(fails_once), StepwisePairs(tuned_steps=(20, 4)))
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
    score = answering(lambda images: images.mean((1, 2, 3)))

    async def side_by_side() -> list[Drawn]:
        tickets = [drawing(model, score, EVERY_THIRD, seeds) for seeds in ((5, 6), (1, 2), (7, 8))]
        return await asyncio.gather(*tickets)

    alone, beside = draw(model, score, EVERY_THIRD), asyncio.run(side_by_side())[1]
    tables = [pair_table(one, Ticket(7, 4), 1, ["stub"], "stepwise") for one in (alone, beside)]
    clock = ["ticket_rollout_s", "ticket_scoring_s", "ticket_queued_s"]
    assert tables[0].drop(clock).equals(tables[1].drop(clock))


def test_no_call_builds_a_graph(model: TextToImage) -> None:
    """A `no_grad` around a coroutine ends before its body begins; this one must hold inside, and leak nowhere."""
    seen: list[bool] = []
    hook = model.denoiser.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    pairs = StepwisePairs(tuned_steps=(8, 2))
    score = answering(lambda images: images.mean((1, 2, 3)))

    async def side_by_side() -> list[Drawn]:
        return await asyncio.gather(*[drawing(model, score, pairs) for _ in range(2)])

    try:
        assert torch.is_grad_enabled()
        drawn = asyncio.run(side_by_side())
        assert torch.is_grad_enabled()
    finally:
        hook.remove()
    assert len(seen) == 2 * 10
    assert not any(seen)
    assert not any(value.requires_grad for one in drawn for rows in one.rows for value in rows.latents.values())


def test_the_table_has_the_schema_and_every_pair(model: TextToImage) -> None:
    first, second = StubScorer(), StubScorer("red")
    score = LocalScoreFn({"a": (first, 1.0), "b": (second, 0.5)})
    drawn = draw(model, score, StepwisePairs(tuned_steps=(8, 3)))
    table = pair_table(drawn, Ticket(7, 4), 1, ["b", "a"], "stepwise")
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
    np.testing.assert_array_equal(np.array(rows[3]["winner"]), drawn.rows[1].latents["winner"][1].numpy().reshape(-1))
