import time

import numpy as np
import pytest

from rayalign.rewards.stub import StubScorer


def test_brightness_and_red_by_hand() -> None:
    image = np.zeros((1, 3, 2, 2), dtype=np.float32)
    image[0, 0] = 1.0  # all red
    assert StubScorer().score(image, [""])[0] == pytest.approx(1 / 3)
    assert StubScorer(rule="red").score(image, [""])[0] == 1.0
    assert StubScorer(rule="red").score(np.ones_like(image), [""])[0] == 0.0


def test_gradient_is_the_weight_of_a_pixel() -> None:
    scores, grad = StubScorer(rule="red").score_and_grad(np.ones((2, 3, 4, 5), dtype=np.float32), ["", ""])
    assert scores.shape == (2,)
    # weights 1, -0.5, -0.5, shared by 4 x 5 pixels
    np.testing.assert_allclose(grad[1, :, 0, 0], [0.05, -0.025, -0.025])


def test_bits_do_not_depend_on_the_company(noisy_images: np.ndarray) -> None:
    together = StubScorer().score(noisy_images, [""] * 8)
    alone = [StubScorer().score(image[None], [""])[0] for image in noisy_images]
    np.testing.assert_array_equal(together, alone)


def test_sleeps_by_call_or_by_image(noisy_images: np.ndarray) -> None:
    start = time.perf_counter()
    StubScorer(seconds=0.01).score(noisy_images, [""] * 8)
    by_call = time.perf_counter() - start
    StubScorer(seconds=0.01, per="image").score(noisy_images, [""] * 8)
    by_image = time.perf_counter() - start - by_call
    assert by_call >= 0.01
    assert by_image >= 0.08


def test_fails_as_asked(noisy_images: np.ndarray) -> None:
    prompts = [""] * 8
    with pytest.raises(RuntimeError):
        StubScorer(fail="construct")
    with pytest.raises(RuntimeError):
        StubScorer(fail="raise").score(noisy_images, prompts)
    assert StubScorer(fail="short").score(noisy_images, prompts).shape == (7,)
    assert np.isnan(StubScorer(fail="nan").score(noisy_images, prompts)).tolist() == [True] + [False] * 7
    assert np.isinf(StubScorer(fail="inf").score(noisy_images, prompts)[0])
