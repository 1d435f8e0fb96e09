from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
import torch

from rayalign.algorithms.guidance import cosine_eta
from rayalign.config import GuidanceConfig, StepwisePairs
from rayalign.models.text_to_image import TextToImage
from rayalign.records import Scores
from rayalign.rewards.clip import ClipScorer, toy_clip
from rayalign.rewards.local import LocalScoreFn
from rayalign.rewards.protocol import ScoreFn
from rayalign.rewards.stub import StubScorer
from rayalign.sampling.drawn import Clock, Drawn
from rayalign.sampling.guidance import Guided, Winner, guide, look_ahead, reward_gradient
from rayalign.sampling.noise import SampleNoise
from rayalign.sampling.sources import draw_stepwise
from rayalign.toy import shapes
from tests.sampling.scores import BRIGHTNESS
from tests.toys import model_of, nudged

TUNED = (14, 12, 10, 8, 6)  # of a run on a toy
GUIDED = GuidanceConfig(enabled=True)  # the paper's eta and delta


@pytest.fixture(scope="module")
def toy() -> TextToImage:
    """toy-sdxl as a run on a toy samples it, with a policy that is not the base."""
    pairs = {"kind": "stepwise", "tuned_steps": TUNED}
    model = model_of("toy-sdxl", ("policy",), sampler={"guidance_scale": 1.0}, pairs=pairs)
    model.weights.load("policy", nudged(model, 1))
    return model


@pytest.fixture(scope="module")
def stub() -> TextToImage:
    return model_of("stub", ("policy",))


@pytest.fixture(scope="module")
def clip() -> ClipScorer:
    return toy_clip("cpu")


def prompts_of(count: int) -> list[str]:
    return shapes.train_prompts()[:: len(shapes.train_prompts()) // count][:count]


def draw(model: TextToImage, score: ScoreFn, prompts: list[str], pairs: StepwisePairs, first_seed: int = 1) -> Drawn:
    noise = SampleNoise(range(first_seed, first_seed + len(prompts)), model.latent_shape, model.device)
    return asyncio.run(draw_stepwise(model, score, prompts, noise, pairs, annotated=False))


def latents_like(model: TextToImage, count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((count, *model.latent_shape), generator=torch.Generator().manual_seed(seed))


def winner_of(model: TextToImage, score: ScoreFn, x: torch.Tensor, step: int, prompts: list[str]) -> Winner:
    """As the sampler has it before guidance."""
    prediction, clean = look_ahead(model, x, step, model.encode(prompts))
    scores = asyncio.run(score(model.decode(clean).numpy(), prompts))  # type: ignore[arg-type]
    return Winner(x, prediction, clean, scores)


def guided(
    model: TextToImage, score: ScoreFn, winner: Winner, step: int, prompts: list[str], config: GuidanceConfig = GUIDED
) -> Guided:
    return asyncio.run(guide(model, score, winner, step, model.encode(prompts), prompts, config, Clock()))


def end_to_end(model: TextToImage, clip: ClipScorer, x: torch.Tensor, step: int, prompts: list[str]) -> torch.Tensor:
    """d sum r / d x by autograd through denoiser, VAE and scorer at once, all of torch, in this process."""
    x = x.clone().requires_grad_(True)
    t, text = torch.full((len(x),), model.kernel.timestep(step - 1)), model.encode(prompts)
    clean = model.kernel.clean_latent(model.denoise(x, t, text), x, t)[0]
    images = model.decode_with_grad(clean)
    shown = images + (images.clamp(0, 1) - images).detach()  # scored as it is shown; overshot pixels pull back too
    return torch.autograd.grad(clip.score_tensors(shown, prompts).sum(), x)[0]


@pytest.mark.parametrize("step", [20, 14, 10, 6, 2])
def test_the_gradient_is_autograds_from_end_to_end(toy: TextToImage, clip: ClipScorer, step: int) -> None:
    """In pieces (scorer apart, images and their gradient as numpy) and at once: the same to 1e-5."""
    prompts, x = prompts_of(8), latents_like(toy, 8)
    score = LocalScoreFn({"toy-clip": (clip, 1.0)})
    found = asyncio.run(reward_gradient(toy, score, x, step, toy.encode(prompts), prompts, Clock()))
    expected = end_to_end(toy, clip, x, step, prompts)
    assert (expected.flatten(1).norm(dim=1) > 0).all()
    difference = (found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    assert difference.max() < 1e-5
    assert not found.requires_grad


def test_a_samples_gradient_does_not_depend_on_the_batch(toy: TextToImage, clip: ClipScorer) -> None:
    """The batch is summed: a mean would make each step a fourth."""
    prompts, x = prompts_of(4), latents_like(toy, 4)
    score = LocalScoreFn({"toy-clip": (clip, 1.0)})
    together = asyncio.run(reward_gradient(toy, score, x, 10, toy.encode(prompts), prompts, Clock()))
    alone = asyncio.run(reward_gradient(toy, score, x[2:3], 10, toy.encode(prompts[2:3]), prompts[2:3], Clock()))
    torch.testing.assert_close(together[2:3], alone, rtol=1e-4, atol=1e-5 * alone.abs().max().item())


def test_a_move_by_hand(stub: TextToImage) -> None:
    """At step 1 the candidate is clean, and the stub's VAE shows the first three channels as x / 2 + 0.5.

    Brightness is the mean over three channels of 8 x 8 latents, so d r / d x = 0.5 / 192 in them, and 0 in the fourth.
    """
    x = 0.1 * latents_like(stub, 2)
    prompts = ["a", "b"]
    config = GuidanceConfig(enabled=True, delta=4.0, eta_noisy=1.0, eta_clean=3.0)
    before = winner_of(stub, BRIGHTNESS, x, 1, prompts)
    found = guided(stub, BRIGHTNESS, before, 1, prompts, config)
    eta = cosine_eta(1, 20, 1.0, 3.0)
    assert eta == pytest.approx(2.987688, abs=1e-5)  # 1 + (1 + cos(pi / 20))
    moved = torch.zeros_like(x)
    moved[:, :3] = 2 * eta * 4.0 * 0.5 / 192
    torch.testing.assert_close(found.latents, x + moved, atol=1e-6, rtol=0)
    assert found.accepted_B.tolist() == [True, True]
    # The reward rises by 192 (0.5 / 192) x the move = half the move.
    np.testing.assert_allclose(found.scores.total_B - before.scores.total_B, 0.5 * 8 * eta * 0.5 / 192, atol=1e-6)
    assert torch.equal(found.clean, found.latents)
    assert (found.prediction, found.calls) == (None, 0)


class Scolding(LocalScoreFn):
    """Points the wrong way for odd samples, so that moving them lowers their score."""

    async def score_and_grad(self, images_BCHW: np.ndarray, prompts: list[str]) -> tuple[Scores, np.ndarray]:
        scores, gradient = await super().score_and_grad(images_BCHW, prompts)
        return scores, gradient * np.where(np.arange(len(gradient)) % 2, -1, 1).reshape(-1, 1, 1, 1).astype(np.float32)


def test_what_does_not_raise_the_score_is_not_kept(toy: TextToImage, clip: ClipScorer) -> None:
    prompts, x = prompts_of(6), latents_like(toy, 6)
    score = Scolding({"toy-clip": (clip, 1.0), "stub": (StubScorer(), 0.0)})
    before = winner_of(toy, score, x, 10, prompts)
    found = guided(toy, score, before, 10, prompts, GuidanceConfig(enabled=True, eta_noisy=1.0, eta_clean=2.0))
    assert found.accepted_B.tolist() == [True, False] * 3
    assert found.calls == 2
    kept, left = torch.tensor([0, 2, 4]), torch.tensor([1, 3, 5])
    assert (found.scores.total_B[kept] > before.scores.total_B[kept]).all()
    np.testing.assert_array_equal(found.scores.total_B[left], before.scores.total_B[left])
    for new, old in ((found.latents, x), (found.prediction, before.prediction), (found.clean, before.clean)):
        assert torch.equal(new[left], old[left])
        assert (new[kept] != old[kept]).flatten(1).any(1).all()
    # What is kept belongs together: prediction, clean latents, scores and their parts are of the moved latents.
    again = winner_of(toy, score, found.latents, 10, prompts)
    torch.testing.assert_close(found.prediction, again.prediction, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.clean, again.clean, atol=1e-5, rtol=0)
    for name in ("toy-clip", "stub"):
        np.testing.assert_allclose(found.scores.parts[name], again.scores.parts[name], atol=1e-5)


@pytest.mark.parametrize("eta", [(0.1, 0.2), (100.0, 200.0)], ids=["the paper's", "far too far"])
def test_no_score_ever_falls(toy: TextToImage, clip: ClipScorer, eta: tuple[float, float]) -> None:
    prompts, score = prompts_of(8), LocalScoreFn({"toy-clip": (clip, 1.0)})
    config = GuidanceConfig(enabled=True, eta_noisy=eta[0], eta_clean=eta[1])
    shares = []
    for step in (20, 10, 1):
        before = winner_of(toy, score, latents_like(toy, 8, seed=step), step, prompts)
        found = guided(toy, score, before, step, prompts, config)
        assert (found.scores.total_B >= before.scores.total_B).all()
        np.testing.assert_array_equal(found.scores.total_B > before.scores.total_B, found.accepted_B)
        shares.append(found.accepted_B.mean())
    # Moves that overshoot are refused, so that there was something to hold.
    assert min(shares) < 0.9 if eta[0] > 1 else max(shares) > 0.9


def test_it_raises_the_reward_of_nine_in_ten_samples(toy: TextToImage, clip: ClipScorer) -> None:
    """The paper's eta and delta, toy settings, 24 prompts: its figure 7 says 0.97 to 0.99 at all but the noisiest."""
    pairs = StepwisePairs(tuned_steps=TUNED, guidance=GUIDED)
    drawn = draw(toy, LocalScoreFn({"toy-clip": (clip, 1.0)}), prompts_of(24), pairs)
    share = {rows.step: rows.guided_B.mean() for rows in drawn.rows}
    assert list(share) == list(TUNED)
    assert all(share[step] >= 0.9 for step in TUNED[-3:]), share


def test_the_moved_winner_enters_the_pair_and_goes_on(toy: TextToImage, clip: ClipScorer) -> None:
    prompts, score = prompts_of(4), LocalScoreFn({"toy-clip": (clip, 1.0)})
    tuned = (20, 19, 18)
    plain = draw(toy, score, prompts, StepwisePairs(tuned_steps=tuned))
    strong = GuidanceConfig(enabled=True, eta_noisy=5.0, eta_clean=5.0)
    moved = draw(toy, score, prompts, StepwisePairs(tuned_steps=tuned, guidance=strong))
    first, before = moved.rows[0], plain.rows[0]
    assert not before.guided_B.any()
    assert first.guided_B.any()
    # The same draws up to there: x_t and loser are the plain pair's, the winner is that one, moved where accepted.
    assert torch.equal(first.latents["x_t"], before.latents["x_t"])
    assert torch.equal(first.latents["loser"], before.latents["loser"])
    same = [
        torch.equal(one, other) for one, other in zip(first.latents["winner"], before.latents["winner"], strict=True)
    ]
    assert same == [not accepted for accepted in first.guided_B]
    assert ((first.winner.total_B > before.winner.total_B) == first.guided_B).all()
    assert torch.equal(moved.rows[1].latents["x_t"], first.latents["winner"])
    assert torch.equal(moved.rows[2].latents["x_t"], moved.rows[1].latents["winner"])


@pytest.mark.parametrize(("tuned", "calls"), [((20, 16, 12, 8, 4), 35), ((20, 1), 23)])
def test_calls_with_guidance(stub: TextToImage, tuned: tuple[int, ...], calls: int) -> None:
    """20 steps, one more look for the loser, one with gradient and one at the moved winner; none of them at step 1."""
    pairs = StepwisePairs(tuned_steps=tuned, guidance=GUIDED)
    stub.calls.clear()
    drawn = draw(stub, BRIGHTNESS, ["a cat", "a dog"], pairs)
    assert stub.calls == {"policy": calls * 2}
    assert drawn.denoiser_calls == pairs.calls_per_trajectory(20) == calls


class Failing(LocalScoreFn):
    """Has no score, and no gradient, for the first sample."""

    async def __call__(self, images_BCHW: np.ndarray, prompts: list[str]) -> Scores:
        scores = await super().__call__(images_BCHW, prompts)
        scores.total_B[0] = np.nan
        return scores

    async def score_and_grad(self, images_BCHW: np.ndarray, prompts: list[str]) -> tuple[Scores, np.ndarray]:
        scores, gradient = await super().score_and_grad(images_BCHW, prompts)
        gradient[0] = np.nan
        return scores, gradient


def test_a_failed_score_leaves_its_winner_where_it_is(stub: TextToImage) -> None:
    score, x, prompts = Failing({"stub": (StubScorer(), 1.0)}), latents_like(stub, 3), ["a", "b", "c"]
    found = guided(stub, score, winner_of(stub, score, x, 10, prompts), 10, prompts)
    assert found.accepted_B.tolist() == [False, True, True]
    assert torch.equal(found.latents[0], x[0])
    assert found.latents.isfinite().all()
    assert found.prediction is not None
    assert found.prediction.isfinite().all()
    assert np.isnan(found.scores.total_B).tolist() == [True, False, False]


class Watching(LocalScoreFn):
    """Notes whether gradients are on while it works: other tickets share the thread then."""

    seen: list[bool]

    async def score_and_grad(self, images_BCHW: np.ndarray, prompts: list[str]) -> Any:
        self.seen.append(torch.is_grad_enabled())
        await asyncio.sleep(0)
        return await super().score_and_grad(images_BCHW, prompts)


def test_gradients_are_on_for_the_forward_pass_alone(stub: TextToImage) -> None:
    score = Watching({"stub": (StubScorer(), 1.0)})
    score.seen = []
    pairs = StepwisePairs(tuned_steps=(10, 5), guidance=GUIDED)

    async def side_by_side() -> list[Drawn]:
        noises = [SampleNoise((seed,), stub.latent_shape, stub.device) for seed in (1, 2)]
        return await asyncio.gather(*[draw_stepwise(stub, score, ["a cat"], one, pairs, False) for one in noises])

    with torch.no_grad():
        drawn = asyncio.run(side_by_side())
        assert not torch.is_grad_enabled()
    assert score.seen == [False] * 4
    assert all(rows.guided_B.all() for one in drawn for rows in one.rows)
    assert not any(value.requires_grad for one in drawn for rows in one.rows for value in rows.latents.values())
    assert all(parameter.grad is None for parameter in stub.denoiser.parameters())
