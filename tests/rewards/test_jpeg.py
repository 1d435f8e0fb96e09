import io

import numpy as np
import pytest
from PIL import Image

from rayalign.rewards.jpeg import JpegLargeScorer, JpegScorer, to_uint8


@pytest.mark.parametrize(("kind", "sign"), [(JpegScorer, -1), (JpegLargeScorer, 1)])
def test_equals_pillows_own_size(noisy_images: np.ndarray, kind: type, sign: int) -> None:
    expected = []
    for image in noisy_images:
        levels = Image.fromarray(np.asarray(image.transpose(1, 2, 0) * 255 + 0.5, dtype=np.uint8))
        file = io.BytesIO()
        levels.save(file, "JPEG", quality=95)
        expected.append(sign * len(file.getvalue()) / 1000)
    np.testing.assert_array_equal(kind().score(noisy_images, [""] * 8), np.float32(expected))


@pytest.mark.parametrize("kind", [JpegScorer, JpegLargeScorer])
def test_eight_are_eight_times_one(noisy_images: np.ndarray, kind: type) -> None:
    alone = [kind().score(noisy_images[row : row + 1], [""])[0] for row in range(8)]
    np.testing.assert_array_equal(kind().score(noisy_images, [""] * 8), alone)
    assert len(set(alone)) > 1


def test_smooth_beats_noise_and_lower_quality_is_smaller(noisy_images: np.ndarray) -> None:
    flat = np.full_like(noisy_images[:1], 0.5)
    assert JpegScorer().score(flat, [""])[0] > JpegScorer().score(noisy_images[:1], [""])[0]
    assert JpegScorer(quality=10).score(noisy_images[:1], [""])[0] > JpegScorer().score(noisy_images[:1], [""])[0]


def test_incompressibility_is_the_opposite(noisy_images: np.ndarray) -> None:
    small, large = JpegScorer(quality=50), JpegLargeScorer(quality=50)
    np.testing.assert_array_equal(large.score(noisy_images, [""] * 8), -small.score(noisy_images, [""] * 8))
    assert (large.score(noisy_images, [""] * 8) > 0).all()
    assert np.isnan(large.score(np.full((1, 3, 8, 8), np.nan, dtype=np.float32), [""])).all()


def test_rounds_to_the_nearest_level_and_clamps() -> None:
    # 0.5/255 rounds to the even 0, 0.6/255 to 1; 2.0 is 255 and -1.0 is 0
    image = np.array([0.5 / 255, 0.6 / 255, 2.0, -1.0]).reshape(1, 2, 2).repeat(3, axis=0)
    np.testing.assert_array_equal(to_uint8(image)[..., 0], [[0, 1], [255, 0]])


def test_a_nan_pixel_is_not_a_colour(noisy_images: np.ndarray) -> None:
    noisy_images[1, 0, 0, 0] = np.nan
    scores = JpegScorer().score(noisy_images, [""] * 8)
    assert np.isnan(scores).tolist() == [False, True] + [False] * 6


def test_refuses_a_quality_out_of_range() -> None:
    with pytest.raises(ValueError, match="quality = 0"):
        JpegScorer(quality=0)
