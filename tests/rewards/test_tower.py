"""What holds for every scorer with a tower. What each of them computes is in the test file of its own name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from rayalign.rewards.protocol import TextEncoder
from rayalign.rewards.tower import TextTowerScorer, unit

NAMES = ["clip", "pickscore", "hpsv2", "hpsv2.1", "aesthetic"]
TEXT_NAMES = NAMES[:-1]
PROMPTS = ["a red circle", "a blue square", "green", "a red circle", "circle", "blue", "a", "red square"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_bits_do_not_depend_on_the_company(
    make_tower: Callable, noisy_images: np.ndarray, name: str, dtype: str
) -> None:
    scorer = make_tower(name, dtype=dtype)
    together, grads = scorer.score_and_grad(noisy_images, PROMPTS)
    np.testing.assert_array_equal(scorer.score(noisy_images, PROMPTS), together)
    assert (together.dtype, grads.dtype, grads.shape) == (np.float32, np.float32, noisy_images.shape)
    for row in range(8):
        alone, grad = scorer.score_and_grad(noisy_images[row : row + 1], PROMPTS[row : row + 1])
        np.testing.assert_array_equal(alone, together[row : row + 1])
        np.testing.assert_array_equal(grad, grads[row : row + 1])
    order = [5, 2, 7, 0, 1, 6, 3, 4]
    shuffled = scorer.score(noisy_images[order], [PROMPTS[row] for row in order])
    np.testing.assert_array_equal(shuffled, together[order])
    eleven = scorer.score(np.concatenate([noisy_images, noisy_images[:3]]), PROMPTS + PROMPTS[:3])
    np.testing.assert_array_equal(eleven, np.concatenate([together, together[:3]]))
    assert len(set(together.tolist())) >= 7  # they are told apart: equal bits say something


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", TEXT_NAMES)
def test_a_text_encoded_elsewhere_gives_the_same_bits(
    make_tower: Callable, noisy_images: np.ndarray, name: str, dtype: str
) -> None:
    here, elsewhere = make_tower(name, dtype=dtype), make_tower(name, dtype=dtype)
    assert isinstance(here, TextEncoder)
    assert here.missing_texts(PROMPTS) == list(dict.fromkeys(PROMPTS))
    for prompt in here.missing_texts(PROMPTS):
        here.keep_text(prompt, elsewhere.encode_text(prompt))
    assert here.missing_texts(PROMPTS) == []
    np.testing.assert_array_equal(here.score(noisy_images, PROMPTS), elsewhere.score(noisy_images, PROMPTS))
    assert (here.num_text_runs, elsewhere.num_text_runs) == (0, len(set(PROMPTS)))


@pytest.mark.parametrize("name", NAMES)
def test_gradient_equals_finite_differences(make_tower: Callable, noisy_images: np.ndarray, name: str) -> None:
    single, exact = make_tower(name, chunk=2), make_tower(name)
    exact.model.double()
    getattr(exact, "head", exact.model).double()
    # Away from 0 and 1: the clamp's gradient is straight-through on purpose, its difference quotient is not.
    # One in four rather than noise at full contrast, so that bicubic does not overshoot either.
    images = 0.4 + 0.2 * noisy_images[:2]
    direction = torch.from_numpy(np.random.default_rng(2).standard_normal(images.shape))
    at = torch.from_numpy(images).double().requires_grad_(True)
    (grad,) = torch.autograd.grad(exact.score_tensors(at, PROMPTS[:2]).sum(), at)
    slope = (grad * direction).sum(dim=(1, 2, 3)).numpy()
    step = 1e-5
    with torch.no_grad():
        ahead, behind = (exact.score_tensors(at + sign * step * direction, PROMPTS[:2]) for sign in (1, -1))
    quotient = ((ahead - behind) / (2 * step)).numpy()
    assert quotient.dtype == np.float64
    np.testing.assert_allclose(slope, quotient, rtol=1e-6)
    answered = (single.score_and_grad(images, PROMPTS[:2])[1].astype(np.float64) * direction.numpy()).sum((1, 2, 3))
    np.testing.assert_allclose(answered, quotient, rtol=1e-3)  # float32 gradient against a float64 quotient


@pytest.mark.parametrize("name", NAMES)
def test_an_overshot_pixel_keeps_its_gradient(make_tower: Callable, noisy_images: np.ndarray, name: str) -> None:
    scorer = make_tower(name)
    images = noisy_images[:1].copy()
    images[0, :, 20:28, 16:24] = 1.3  # as a VAE overshoots; a plain clamp would end the gradient here
    scores, grad = scorer.score_and_grad(images, PROMPTS[:1])
    assert (grad[0, :, 20:28, 16:24] != 0).all()
    np.testing.assert_array_equal(scores, scorer.score(np.minimum(images, 1), PROMPTS[:1]))


@pytest.mark.parametrize("name", NAMES)
def test_following_the_gradient_raises_the_score(make_tower: Callable, noisy_images: np.ndarray, name: str) -> None:
    scorer = make_tower(name)
    before, grad = scorer.score_and_grad(noisy_images, PROMPTS)
    after = scorer.score(np.clip(noisy_images + 0.01 * np.sign(grad), 0, 1).astype(np.float32), PROMPTS)
    assert (after > before).all()


@pytest.mark.parametrize("name", TEXT_NAMES)
def test_text_tower_runs_once_for_each_distinct_prompt(
    make_tower: Callable, noisy_images: np.ndarray, name: str
) -> None:
    scorer = make_tower(name)
    for _ in range(2):
        scorer.score(noisy_images, PROMPTS)
        scorer.score_and_grad(noisy_images, PROMPTS)
    assert scorer.num_text_runs == 7  # one of the 8 prompts stands twice


@pytest.mark.parametrize("name", TEXT_NAMES)
def test_embeddings_are_those_that_are_compared(make_tower: Callable, noisy_images: np.ndarray, name: str) -> None:
    scorer = make_tower(name)
    images, texts = scorer.embed_images(noisy_images), scorer.embed_prompts(PROMPTS)
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1, rtol=1e-6)
    scale = 100 if name == "pickscore" else 1
    np.testing.assert_allclose(scale * (images * texts).sum(1), scorer.score(noisy_images, PROMPTS), rtol=1e-4)
    np.testing.assert_array_equal(scorer.embed_images(noisy_images[3:4]), images[3:4])


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_close(make_tower: Callable, noisy_images: np.ndarray, name: str) -> None:
    exact, rounded = (make_tower(name, dtype=dtype).score(noisy_images, PROMPTS) for dtype in ("float32", "bfloat16"))
    assert not np.array_equal(exact, rounded)
    assert np.abs(rounded - exact).max() < 0.02 * (100 if name == "pickscore" else 1)  # bfloat16 has 3 digits


@pytest.mark.parametrize("name", NAMES)
def test_nan_stays_with_its_image(make_tower: Callable, noisy_images: np.ndarray, name: str) -> None:
    scorer = make_tower(name)
    expected = scorer.score(noisy_images, PROMPTS)
    noisy_images[2, 0, 20, 20] = np.nan
    scores = scorer.score(noisy_images, PROMPTS)
    assert np.isnan(scores).tolist() == [False, False, True] + [False] * 5
    np.testing.assert_array_equal(np.delete(scores, 2), np.delete(expected, 2))


@pytest.mark.parametrize("name", NAMES)
def test_frozen_and_in_eval_mode(make_tower: Callable, name: str) -> None:
    scorer = make_tower(name)
    for part in (scorer.model, getattr(scorer, "head", scorer.model)):
        assert not part.training
        assert not any(parameter.requires_grad for parameter in part.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_no_images_no_scores(make_tower: Callable, name: str) -> None:
    none = np.zeros((0, 3, 32, 32), dtype=np.float32)
    scorer = make_tower(name)
    assert scorer.score(none, []).shape == (0,)
    assert scorer.score_and_grad(none, [])[1].shape == none.shape


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("options", "message"),
    [({"chunk": 0}, "chunk = 0"), ({"dtype": "float16"}, "dtype = 'float16': set one of float32, bfloat16")],
)
def test_refuses_options(make_tower: Callable, name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_tower(name, **options)


@pytest.mark.parametrize("name", TEXT_NAMES)
def test_one_prompt_for_each_image(make_tower: Callable, noisy_images: np.ndarray, name: str) -> None:
    with pytest.raises(ValueError, match="8 images but 1 prompts"):
        make_tower(name).score(noisy_images, ["red"])


def test_a_scorer_without_prompts_takes_any(make_tower: Callable, noisy_images: np.ndarray) -> None:
    scorer = make_tower("aesthetic")
    np.testing.assert_array_equal(scorer.score(noisy_images, []), scorer.score(noisy_images, PROMPTS))


def test_cached_prompts_are_bounded(make_tower: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rayalign.rewards.tower.MAX_CACHED_PROMPTS", 2)
    scorer: TextTowerScorer = make_tower("clip")
    scorer.embed_prompts(["red", "green", "blue", "green", "red"])
    assert scorer.num_text_runs == 4  # blue pushed red out, the oldest


def test_unit_by_hand() -> None:
    assert unit(torch.tensor([[3.0, 4.0]])).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]]  # 3-4-5
    assert unit(torch.ones(1, 4, dtype=torch.bfloat16)).dtype == torch.float32
    assert unit(torch.ones(1, 4, dtype=torch.float64)).dtype == torch.float64
