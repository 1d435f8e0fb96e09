"""The conformance check passes our scorers, and says of each broken one what is wrong with it and what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from rayalign.rewards.clip import toy_clip
from rayalign.rewards.jpeg import JpegLargeScorer, JpegScorer
from rayalign.rewards.stub import StubScorer
from rayalign.rewards.testing import check_scorer_conforms, find_problems


class Good:
    """Mean of the squared red channel, so that the gradient is not the same everywhere."""

    differentiable = True
    needs_prompt = False
    unit = "mean squared red, 0 to 1"

    def score(self, images_BCHW: np.ndarray, prompts: list[str]) -> np.ndarray:
        return np.array([(image[0].astype(np.float64) ** 2).mean() for image in images_BCHW], dtype=np.float32)

    def score_and_grad(self, images_BCHW: np.ndarray, prompts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        grad_BCHW = np.zeros_like(images_BCHW)
        grad_BCHW[:, 0] = 2 * images_BCHW[:, 0] / images_BCHW[0, 0].size
        return self.score(images_BCHW, prompts), grad_BCHW


def changed(**members: Any) -> type:
    """`Good` with something broken."""
    return type("Broken", (Good,), members)


def scored(answer: Callable) -> dict:
    """Members of a scorer whose score is `answer` of the good score and the images; no gradient to disagree."""

    def score(self: Good, images_BCHW: np.ndarray, prompts: list[str]) -> Any:
        return answer(Good.score(self, images_BCHW, prompts), images_BCHW, prompts)

    return {"score": score, "differentiable": False}


def graded(answer: Callable) -> dict:
    """Members of a scorer whose gradient is `answer` of the good one."""

    def score_and_grad(self: Good, images_BCHW: np.ndarray, prompts: list[str]) -> Any:
        scores, grad = Good.score_and_grad(self, images_BCHW, prompts)
        return answer(scores, grad, images_BCHW)

    return {"score_and_grad": score_and_grad}


def in_place(scores: np.ndarray, images: np.ndarray, prompts: list[str]) -> np.ndarray:
    images -= 0.5
    return scores


def sorted_prompts(scores: np.ndarray, images: np.ndarray, prompts: list[str]) -> np.ndarray:
    prompts.sort()
    return scores


def needs_more_than_one(scores: np.ndarray, images: np.ndarray, prompts: list[str]) -> np.ndarray:
    if len(images) < 2:
        raise IndexError("list index out of range")
    return scores


def half_of(scores: np.ndarray, grad: np.ndarray, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Right wherever it is not zero: along itself nothing shows."""
    grad = grad.copy()
    grad[:, :, ::2] = 0
    return scores, grad


BROKEN = {
    # Reading a property without a getter raises AttributeError: as good as not there.
    "no method": ({"score": property()}, "lacks score; add them to the class"),
    "no gradient": ({"score_and_grad": property()}, "lacks score_and_grad"),
    "flags": ({"needs_prompt": "yes"}, "needs_prompt is 'yes'; set it to True or False"),
    "unit": ({"unit": " "}, "unit is ' '; say scale and range in words"),
    "environment": ({"runtime_env": "pip"}, "runtime_env is 'pip'; set it to a dict"),
    "column": (
        scored(lambda s, *_: s[:, None]),
        r"shape (5, 1) for 5 images of 72 x 56; give .* shape (5,), in the order",
    ),
    "one number": (scored(lambda s, *_: s.mean()), "gave a float32 for 5 images"),
    "N x N": (scored(lambda s, *_: s[:, None] - s), "shape (5, 5) for 5 images"),
    "one short": (scored(lambda s, *_: s[1:]), "shape (4,) for 5 images"),
    "list": (scored(lambda s, *_: s.tolist()), "gave a list for 5 images .* by np.asarray(..., dtype=np.float32)"),
    "tensor": (scored(lambda s, *_: torch.from_numpy(s)), "gave a Tensor .* by .detach().cpu().numpy()"),
    "double": (scored(lambda s, *_: s.astype(np.float64)), "gave float64; .* by .astype(np.float32)"),
    "one alone": (scored(needs_more_than_one), "raised on 1 images of 72 x 56: IndexError: list index out of range"),
    "not finite": (scored(lambda s, *_: s + np.float32("inf")), "NaN and infinity count as failures"),
    "in place": (scored(in_place), "changes the images it is given"),
    "prompts in place": (scored(sorted_prompts), "changes the list of prompts it is given"),
    "at random": (
        scored(lambda s, *_: s + np.random.default_rng().random(len(s), dtype=np.float32)),
        "is not deterministic: .* put models in eval mode",
    ),
    "standardised": (
        scored(lambda s, *_: s - s.mean()),
        "depends on the images that are scored with it: alone they differ by up to .* no statistics of the batch",
    ),
    "by place": (
        scored(lambda s, *_: s + np.arange(len(s), dtype=np.float32)),
        "depends on the images that are scored with it",
    ),
    "prompt unread": (scored(lambda s, *_: s) | {"needs_prompt": True}, "5 prompts gave one image one score"),
    "prompt read": (
        scored(lambda s, images, prompts: s + np.float32([len(prompt) for prompt in prompts])),
        "needs_prompt is False, yet the score of an image changes",
    ),
    "NaN hidden": (
        scored(lambda s, *_: np.nan_to_num(s)),
        "an image with NaN pixels got the score 0; give NaN or raise",
    ),
    "NaN spread": (scored(lambda s, *_: s + 0 * s.sum()), "an image with NaN pixels changes the scores of the others"),
    "gradient alone": (graded(lambda s, g, i: g), "score_and_grad raised ValueError: .*give (scores, gradients)"),
    "gradient's shape": (graded(lambda s, g, i: (s, g[:, 0])), "score_and_grad's gradient gave shape (5, 72, 56)"),
    "gradient's type": (graded(lambda s, g, i: (s, g.astype(float))), "score_and_grad's gradient gave float64"),
    "gradient's scores": (graded(lambda s, g, i: (s + 1, g)), "make them one computation"),
    "gradient NaN": (graded(lambda s, g, i: (s, g + np.nan)), "the gradient holds NaN or infinity"),
    "gradient of the mean": (graded(lambda s, g, i: (s, g / len(g))), "take the gradient of the sum of the scores"),
    "gradient cut": (graded(lambda s, g, i: (s, 0 * g)), "It is zero: is the graph cut (no_grad, detach"),
    "gradient's sign": (graded(lambda s, g, i: (s, -g)), "disagrees with finite differences: along itself"),
    "gradient's scale": (graded(lambda s, g, i: (s, g / 255)), "for the pixels as they were given (0 to 1"),
    "gradient in part": (graded(half_of), "disagrees with finite differences: along random noise"),
}


def regex(message: str) -> str:
    """Parentheses, brackets and dots as they are; `.*` as any text."""
    return ".*".join(re.escape(part) for part in message.split(".*"))


@pytest.mark.parametrize("name", BROKEN)
def test_says_what_is_wrong(name: str) -> None:
    members, message = BROKEN[name]
    kind = changed(**members)
    with pytest.raises(AssertionError, match=regex(message)) as caught:
        check_scorer_conforms(kind)
    assert str(caught.value).startswith("Broken does not conform to rayalign.rewards.protocol.Scorer:\n  1. ")


def test_read_only_arrays_as_ray_hands_them_over() -> None:
    def undone(scores: np.ndarray, images: np.ndarray, prompts: list[str]) -> np.ndarray:
        before = images.copy()
        images *= 2
        images[...] = before
        return scores

    problems = find_problems(changed(**scored(undone)))
    assert any("cannot be written to, as arrays come from Ray's object store" in problem for problem in problems)


def test_several_problems_are_told_together() -> None:
    kind = changed(**scored(lambda s, *_: np.nan_to_num(s - s.mean())))
    problems = find_problems(kind)
    assert len(problems) == 2
    with pytest.raises(AssertionError, match=r"(?s)1\. a score depends on .*\n  2\. an image with NaN pixels got"):
        check_scorer_conforms(kind)


def test_a_constructor_that_fails_and_one_with_options() -> None:
    with pytest.raises(AssertionError, match=r"made with options \{'rule': 'loud'\}: ValueError: rule = 'loud'"):
        check_scorer_conforms(StubScorer, rule="loud")
    with pytest.raises(TypeError, match=r"options \['rule'\] need the scorer's class"):
        check_scorer_conforms(StubScorer(), rule="red")


def test_default_options_are_used() -> None:
    class Scaled(Good):
        default_options = {"scale": 2.0}  # noqa: RUF012
        differentiable = False

        def __init__(self, scale: float) -> None:
            self.scale = np.float32(scale)

        def score(self, images_BCHW: np.ndarray, prompts: list[str]) -> np.ndarray:
            return self.scale * super().score(images_BCHW, prompts)

    check_scorer_conforms(Scaled)
    with pytest.raises(AssertionError, match=r"options \{'scale': 'big'\}: ValueError"):
        check_scorer_conforms(Scaled, scale="big")


@pytest.mark.parametrize(
    ("scorer", "options"),
    [
        (Good, {}),
        (StubScorer, {}),
        (StubScorer, {"rule": "red"}),
        (JpegScorer, {"quality": 80}),
        (JpegLargeScorer, {}),
        (toy_clip, {"device": "cpu"}),
    ],
)
def test_ours_conform(scorer: Any, options: dict) -> None:
    assert find_problems(scorer, **options) == []


@pytest.mark.parametrize("name", ["clip", "pickscore", "hpsv2", "hpsv2.1", "aesthetic"])
def test_our_towers_conform(make_tower: Callable, name: str) -> None:
    assert find_problems(make_tower(name)) == []


@pytest.mark.parametrize("fail", ["short", "nan", "inf", "raise"])
def test_a_failing_stub_does_not(fail: str) -> None:
    with pytest.raises(AssertionError, match="StubScorer does not conform"):
        check_scorer_conforms(StubScorer, fail=fail)
