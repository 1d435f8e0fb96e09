from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from rayalign.evaluation.image_set import ImageSet
from rayalign.evaluation.model_comparison import against, compare_models
from rayalign.evaluation.model_distances import clip_distance
from rayalign.evaluation.model_table import model_table

PROMPTS = [f"prompt {k}" for k in range(10)]
SEEDS = [1000, 1001]


def images(seed: int, shift: float = 0.0) -> ImageSet:
    rng = np.random.default_rng(seed)
    rows = list(product(PROMPTS, SEEDS))
    jpeg = np.random.default_rng(0).normal(size=len(rows)) + shift * rng.random(len(rows))
    return ImageSet(
        [prompt for prompt, _ in rows],
        [one for _, one in rows],
        rng.integers(0, 256, (len(rows), 8, 8, 3), dtype=np.uint8),
        {"jpeg": jpeg.astype(np.float32), "clip": rng.normal(size=len(rows)).astype(np.float32)},
    )


def test_numbers_equal_an_independent_computation() -> None:
    base, tuned = images(1), images(2, shift=1.0)
    tuned.scores["jpeg"][:4] = base.scores["jpeg"][:4]  # ties
    found = against(base, tuned, "jpeg")
    before, after = (one.scores["jpeg"].astype(np.float64).reshape(10, 2) for one in (base, tuned))
    wins = np.where(after > before, 1.0, np.where(after == before, 0.5, 0.0))
    assert found["median"] == pytest.approx(np.median(after))
    assert found["win_rate"]["mean"] == pytest.approx(wins.mean())
    assert found["change"]["mean"] == pytest.approx((after - before).mean())
    assert found["ties"] == pytest.approx(0.2)
    # The bootstrap by hand, with draws of its own: prompts are what is drawn.
    rng = np.random.default_rng(7)
    means = [wins.mean(1)[rng.integers(0, 10, 10)].mean() for _ in range(20_000)]
    assert found["win_rate"]["ci95"] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.02)


def test_the_paired_test_is_over_prompts_and_exact_where_it_can_be() -> None:
    """All of ten prompts gain: of 2^10 signings two are as far out, p = 2 / 1024."""
    assert against(images(1), images(2, shift=1.0), "jpeg")["p_value"] == pytest.approx(2 / 1024)
    assert against(images(1), images(1), "jpeg")["p_value"] is None


def test_a_failed_score_leaves_its_pair_out_and_is_counted() -> None:
    base, tuned = images(1), images(2, shift=1.0)
    tuned.scores["jpeg"][3] = np.nan
    found = against(base, tuned, "jpeg")
    assert found["failed"] == 1
    assert found["change"]["n"] == 19


def test_a_report_has_every_model_and_category() -> None:
    sets = {"base": images(1), "first": images(2, 1.0), "second": images(3)}
    categories = ["odd" if row // 2 % 2 else "even" for row in range(20)]
    report = compare_models(sets, "base", ["jpeg"], {"jpeg": "kB"}, categories)
    assert report["base"]["scores"]["jpeg"]["guiding"]
    assert not report["base"]["scores"]["clip"]["guiding"]
    assert list(report["models"]) == ["first", "second"]
    part = report["models"]["first"]["categories"]
    assert {name: entry["jpeg"]["change"]["n"] for name, entry in part.items()} == {"even": 10, "odd": 10}
    whole = report | {
        "name": "both",
        "num_prompts": 10,
        "prompts": "animals",
        "seeds_per_prompt": 2,
        "first_seed": 1000,
    }
    whole["base"]["path"] = "toy-sdxl"
    text = model_table(whole)
    assert "| jpeg | guiding | base |" in text
    assert text.count("| first |") == 1 + 1 + 4 + 4  # of each scorer, each category's scorers, drift
    assert "By category" in text
    assert "Distance to the reference" not in text


def test_rows_must_be_the_same() -> None:
    other = images(2)
    other.prompts[0] = "another"
    with pytest.raises(ValueError, match="same prompts"):
        compare_models({"base": images(1), "first": other}, "base", [], {}, [""] * 20)


def test_distance_to_the_bases_picture() -> None:
    class Corner:
        name = "corner"

        def __call__(self, images_BCHW: np.ndarray) -> np.ndarray:
            return images_BCHW[:, :, 0, 0]

    base, tuned = images(1), images(2)
    one, other = (pictures.images[:, 0, 0].astype(np.float64) for pictures in (base, tuned))
    cosine = (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    assert clip_distance(base, tuned, Corner())["mean"] == pytest.approx((1 - cosine).mean(), abs=1e-6)
    assert clip_distance(base, base, Corner())["mean"] == pytest.approx(0, abs=1e-6)
