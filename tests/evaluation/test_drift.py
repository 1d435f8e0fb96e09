import numpy as np
import pytest

from rayalign.evaluation.drift import MEANING, colour_entropy, drift, edge_density, rms_distance, saturation
from rayalign.evaluation.image_set import ImageSet


def flat(red, green, blue, side=8):
    return np.full((side, side, 3), (red, green, blue), np.uint8)


def halves():
    """Left half black, right half white, 8 x 8."""
    image = flat(0, 0, 0)
    image[:, 4:] = 255
    return image


def test_edges():
    # Central differences see the step from columns 3 and 4, 0.5 each: 2 of 8 columns.
    assert edge_density(halves()) == 0.25
    assert edge_density(flat(200, 10, 10)) == 0.0


def test_saturation():
    assert saturation(flat(255, 0, 0)) == 1.0
    assert saturation(flat(200, 150, 100)) == 0.5  # (200 - 100) / 200
    assert saturation(flat(0, 0, 0)) == saturation(flat(90, 90, 90)) == 0.0


def test_entropy():
    assert colour_entropy(halves()) == 1.0  # two colours in equal number: one bit
    assert colour_entropy(flat(7, 7, 7)) == 0.0


def test_distance():
    assert rms_distance(flat(0, 0, 0), flat(255, 255, 255)) == 1.0
    assert rms_distance(flat(0, 0, 0), halves()) == pytest.approx(0.5**0.5)  # half of the squares are 1


def test_drift_is_reported_by_statistic_with_intervals():
    prompts, seeds = ["a", "a", "b", "b"], [0, 1, 2, 3]
    before = ImageSet(prompts, seeds, np.stack([halves(), flat(0, 0, 0)] * 2))
    after = ImageSet(prompts, seeds, np.stack([flat(0, 0, 0)] * 4))
    result = drift(before, after)
    assert set(result["before"]) == set(result["after"]) == set(result["change"]) == set(MEANING)
    # Both prompts have one picture with 25% edges and one with none; after, all edges and variety are gone.
    assert result["before"]["edge_density"] == {"mean": 0.125, "ci95": [0.125, 0.125], "n": 4}
    assert result["change"]["edge_density"]["mean"] == -0.125
    assert result["before"]["diversity"]["mean"] == pytest.approx(0.5**0.5)
    assert result["after"]["diversity"] == {"mean": 0.0, "ci95": [0.0, 0.0], "n": 2}


def test_one_seed_per_prompt_has_no_diversity():
    images = ImageSet(["a", "b"], [0, 1], np.stack([halves()] * 2))
    assert drift(images, images)["before"]["diversity"]["mean"] is None
