from __future__ import annotations

import asyncio
import itertools
from typing import Any

import numpy as np
import pytest
import torch

from rayalign.algorithms.kernel import log_prob
from rayalign.config import FinalPairs, SamplePairs, TrajectoryPairs
from rayalign.models.text_to_image import TextToImage
from rayalign.rewards.protocol import ScoreFn
from rayalign.sampling.drawn import Drawn
from rayalign.sampling.images import draw_images
from rayalign.sampling.noise import SampleNoise
from rayalign.sampling.sources import SOURCES
from tests.sampling.scores import Recording, answering
from tests.toys import model_of, nudged

PROMPTS = ["a cat", "a dog"]
STEPS = 5


@pytest.fixture(scope="module", params=["stub", "toy-sdxl"])
def model(request: pytest.FixtureRequest) -> TextToImage:
    """Five steps, and a policy that is not the base."""
    model = model_of(request.param, ("policy",), sampler={"num_steps": STEPS}, pairs={"kind": "final"})
    model.weights.load("policy", nudged(model, 1))
    return model


@pytest.fixture(scope="module")
def stub() -> TextToImage:
    return model_of("stub", ("policy",), sampler={"num_steps": STEPS}, pairs={"kind": "final"})


def noise_of(model: TextToImage, samples: int) -> SampleNoise:
    return SampleNoise(range(1, samples + 1), model.latent_shape, model.device)


def draw(
    model: TextToImage, score: ScoreFn, pairs: Any, prompts: list[str] = PROMPTS, annotated: bool = False
) -> Drawn:
    source = SOURCES[pairs.kind]
    return asyncio.run(source(model, score, prompts, noise_of(model, len(prompts)), pairs, annotated))  # type: ignore[arg-type]


@torch.no_grad()
def retraced(model: TextToImage, start: torch.Tensor, prompts: list[str], noise: SampleNoise) -> list[torch.Tensor]:
    """Latents of every step of one trajectory, x_T first, by the kernel and the noise alone."""
    latents, text = [start], model.encode(prompts)
    for step in range(STEPS, 0, -1):
        t, t_prev = (
            torch.full((len(prompts),), at) for at in (model.kernel.timestep(step), model.kernel.timestep_prev(step))
        )
        mean, std, _ = model.kernel.transition(model.denoise(latents[-1], t, text), latents[-1], t, t_prev)
        latents.append(mean + std.reshape(-1, 1, 1, 1) * noise.draw())
    return latents


@pytest.mark.parametrize("candidates", [2, 3])
def test_whole_trajectories_share_where_they_start_and_one_label(model: TextToImage, candidates: int) -> None:
    score = Recording()
    model.calls.clear()
    drawn = draw(model, score, TrajectoryPairs(num_candidates=candidates))
    assert model.calls == {"policy": candidates * STEPS * 2}
    assert (drawn.denoiser_calls, drawn.trajectories) == (candidates * STEPS, candidates)
    noise = noise_of(model, 2)
    start = noise.draw()
    ran = [retraced(model, start, PROMPTS, noise) for _ in range(candidates)]
    rewards, both = score.rewards_KB(0), torch.arange(2)
    assert len(score.answers) == 1
    assert len(rewards) == candidates
    assert [rows.step for rows in drawn.rows] == [5, 4, 3, 2]  # all but the last, as steps are not set
    assert torch.equal(drawn.rows[0].latents["x_t"], start)
    assert torch.equal(drawn.rows[0].latents["x_t_loser"], start)
    for number, rows in enumerate(drawn.rows):
        assert rows.status == ["kept", "kept"]
        np.testing.assert_array_equal(rows.winner.total_B, rewards.max(0))
        np.testing.assert_array_equal(rows.loser.total_B, rewards.min(0))
        here, after = (torch.stack([latents[at] for latents in ran]) for at in (number, number + 1))
        for names, chosen in ((("x_t", "winner"), rewards.argmax(0)), (("x_t_loser", "loser"), rewards.argmin(0))):
            torch.testing.assert_close(rows.latents[names[0]], here[chosen, both], atol=1e-5, rtol=0)
            torch.testing.assert_close(rows.latents[names[1]], after[chosen, both], atol=1e-5, rtol=0)
    assert not torch.equal(drawn.rows[1].latents["x_t"], drawn.rows[1].latents["x_t_loser"])
    # What the policy draws is both, not the better ones.
    np.testing.assert_allclose(drawn.final.total_B, rewards.mean(0), rtol=1e-6)


def test_each_side_goes_on_from_where_it_was(model: TextToImage) -> None:
    drawn = draw(model, Recording(), TrajectoryPairs(steps=(2, 5, 4, 3, 1)))
    assert [rows.step for rows in drawn.rows] == [5, 4, 3, 2, 1]
    for rows, following in itertools.pairwise(drawn.rows):
        assert torch.equal(following.latents["x_t"], rows.latents["winner"])
        assert torch.equal(following.latents["x_t_loser"], rows.latents["loser"])
        assert rows.timestep_prev == following.timestep


@pytest.mark.parametrize("pairs", [TrajectoryPairs(min_gap=0.125), FinalPairs(min_gap=0.125)], ids=lambda one: one.kind)
def test_a_tie_a_small_gap_and_a_failure_are_told_apart_at_every_step(stub: TextToImage, pairs: Any) -> None:
    # Candidate 0 of four samples, then candidate 1: gaps 0.25, 0, 0.0625, and a failed score.
    rewards = np.array([0.5, 0.5, 0.5, 0.5, 0.75, 0.5, 0.4375, np.nan], dtype=np.float32)
    drawn = draw(stub, answering(lambda images: rewards), pairs, ["a", "b", "c", "d"])
    assert [rows.status for rows in drawn.rows] == [["kept", "tie", "small_gap", "score_failed"]] * len(drawn.rows)
    assert drawn.rows[0].winner.total_B[:3].tolist() == [0.75, 0.5, 0.5]
    assert drawn.rows[0].loser.total_B[:3].tolist() == [0.5, 0.5, 0.4375]
    assert all(latents.isfinite().all() for rows in drawn.rows for latents in rows.latents.values())


@pytest.mark.parametrize("candidates", [2, 3])
def test_final_pairs_are_finished_pictures_from_noise_of_their_own(model: TextToImage, candidates: int) -> None:
    score = Recording()
    model.calls.clear()
    drawn = draw(model, score, FinalPairs(num_candidates=candidates))
    assert model.calls == {"policy": candidates * STEPS * 2}
    assert (drawn.denoiser_calls, drawn.trajectories, len(drawn.rows)) == (candidates * STEPS, candidates, 1)
    noise = noise_of(model, 2)
    finals = torch.stack([retraced(model, noise.draw(), PROMPTS, noise)[-1] for _ in range(candidates)])
    rows, rewards, both = drawn.rows[0], score.rewards_KB(0), torch.arange(2)
    assert (rows.step, rows.timestep, rows.timestep_prev) == (0, 0.0, 0.0)
    torch.testing.assert_close(rows.latents["winner"], finals[rewards.argmax(0), both], atol=1e-4, rtol=0)
    torch.testing.assert_close(rows.latents["loser"], finals[rewards.argmin(0), both], atol=1e-4, rtol=0)
    # The first candidate is the picture that a plain pipeline draws from this seed.
    first = model.decode(finals[0])
    torch.testing.assert_close(first, draw_images(model, PROMPTS, [1, 2]), atol=1e-4, rtol=0)
    np.testing.assert_allclose(drawn.final.total_B, rewards.mean(0), rtol=1e-6)


GROUPS = ["a"] * 2 + ["b"] * 2 + ["c"] * 2 + ["d"] * 2


def test_advantages_ties_and_failures_by_group(stub: TextToImage) -> None:
    nan = np.nan
    rewards = np.array([1.0, 3.0, 0.25, 0.25, 2.0, nan, nan, nan], dtype=np.float32)
    drawn = draw(stub, answering(lambda images: rewards), SamplePairs(group=2), GROUPS)
    assert [rows.step for rows in drawn.rows] == [5, 4, 3, 2]
    for rows in drawn.rows:
        # 1 and 3: mean 2, deviation 1. Equal rewards, and one that stands alone, say nothing. NaN has no advantage.
        np.testing.assert_allclose(rows.advantage_B, [-1, 1, 0, 0, 0, nan, nan, nan], atol=2e-6)
        assert rows.status == ["kept"] * 2 + ["tie"] * 3 + ["score_failed"] * 3
        np.testing.assert_array_equal(rows.winner.total_B, rewards)
    assert (drawn.denoiser_calls, drawn.trajectories) == (STEPS, 1)


def test_three_of_four_are_normalised_without_the_one_that_failed(stub: TextToImage) -> None:
    rewards = np.array([1.0, 2.0, np.nan, 3.0, 5.0, np.nan, 5.0, 5.0], dtype=np.float32)
    drawn = draw(stub, answering(lambda images: rewards), SamplePairs(group=4, steps=(3,)), GROUPS)
    # 1, 2, 3: mean 2, deviation sqrt(2 / 3), so -1.2247, 0, 1.2247: the middle one is no tie.
    found = drawn.rows[0].advantage_B
    np.testing.assert_allclose(found, [-(1.5**0.5), 0, np.nan, 1.5**0.5, 0, np.nan, 0, 0], atol=1e-5)
    assert drawn.rows[0].status == ["kept"] * 2 + ["score_failed", "kept", "tie", "score_failed", "tie", "tie"]


def test_a_sampled_transition_carries_its_log_probability(model: TextToImage) -> None:
    prompts = ["a cat", "a cat"]
    model.calls.clear()
    drawn = draw(model, Recording(), SamplePairs(group=2, steps=(5, 2, 1)), prompts)
    assert model.calls == {"policy": 2 * STEPS}
    noise, text = noise_of(model, 2), model.encode(prompts)
    ran = retraced(model, noise.draw(), prompts, noise)
    assert [rows.step for rows in drawn.rows] == [5, 2, 1]
    for rows in drawn.rows:
        x_t, x_prev = ran[STEPS - rows.step], ran[STEPS - rows.step + 1]
        assert tuple(rows.latents) == ("x_t", "winner")
        torch.testing.assert_close(rows.latents["x_t"], x_t, atol=1e-5, rtol=0)
        torch.testing.assert_close(rows.latents["winner"], x_prev, atol=1e-5, rtol=0)
        t, t_prev = torch.full((2,), rows.timestep), torch.full((2,), rows.timestep_prev)
        with torch.no_grad():
            mean, std, _ = model.kernel.transition(model.denoise(x_t, t, text), x_t, t, t_prev)
        expected = log_prob(x_prev, mean, std)
        torch.testing.assert_close(torch.from_numpy(rows.log_prob_B), expected, atol=1e-3, rtol=1e-3)
