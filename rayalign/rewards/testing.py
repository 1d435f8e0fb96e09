"""Tries a scorer out and says in words what is wrong with it. For the scorers of this package, and for yours:

    from rayalign.rewards.testing import check_scorer_conforms

    def test_mine() -> None:
        check_scorer_conforms(MyScorer, threshold=0.3)

Needs neither Ray nor a GPU. Shape letters: B images, C H W channels, height, width.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from rayalign.rewards.answer_form import form_problem
from rayalign.rewards.gradient_check import gradient_problems
from rayalign.rewards.table import missing_parts

PROMPTS = ["a red circle", "a blue square", "a green ring on a white ground", "a circle", "two yellow squares"]
SIZE_HW, OTHER_SIZE_HW = (72, 56), (48, 96)
Problems = Iterator[str]


def check_scorer_conforms(scorer_or_class: Any, **options: Any) -> None:
    """Passes a scorer that a run can use, as `rayalign.rewards.protocol.Scorer` describes it.

    Args:
        scorer_or_class: a scorer, or its class or a function that makes one.
        options: passed to the class, on top of its `default_options`.

    Raises:
        AssertionError: it cannot be used; says everything that was found, and what to do about each.
    """
    if problems := find_problems(scorer_or_class, **options):
        name = getattr(scorer_or_class, "__name__", type(scorer_or_class).__name__)
        listed = "\n".join(f"  {number}. {problem}" for number, problem in enumerate(problems, 1))
        raise AssertionError(f"{name} does not conform to rayalign.rewards.protocol.Scorer:\n{listed}")


def find_problems(scorer_or_class: Any, **options: Any) -> list[str]:
    """What is wrong, each with what to do; nothing if the scorer can be used.

    The first group of checks that finds something is the last that is made: a wrong shape makes nonsense of the rest.
    """
    scorer, problems = _built(scorer_or_class, options)
    if problems:
        return problems
    for group in (_attributes, _answer, _behaviour, _gradient):
        if found := list(group(scorer)):
            return found
    return []


def example_images(size_HW: tuple[int, int] = SIZE_HW, seed: int = 0) -> np.ndarray:
    """float32 (5, 3, H, W): noise in [0.4, 0.6], clear of 0 and 1, where a clamp bends the scores."""
    noise = np.random.default_rng(seed).random((len(PROMPTS), 3, *size_HW))
    return (0.4 + 0.2 * noise).astype(np.float32)


def _built(scorer_or_class: Any, options: dict[str, Any]) -> tuple[Any, list[str]]:
    """The scorer; an instance is one already."""
    if not inspect.isclass(scorer_or_class) and not inspect.isroutine(scorer_or_class):
        if options:
            raise TypeError(f"options {sorted(options)} need the scorer's class, and this is one of its instances")
        return scorer_or_class, []
    chosen = {**getattr(scorer_or_class, "default_options", {}), **options}
    try:
        return scorer_or_class(**chosen), []
    except Exception as error:  # whatever a user's constructor raises
        return None, [f"cannot be made with options {chosen}: {_said(error)}; make it work with these, or give others"]


def _attributes(scorer: Any) -> Problems:
    if missing := missing_parts(scorer):
        yield f"lacks {', '.join(missing)}; add them to the class, see rayalign.rewards.protocol.Scorer"
        return
    for name in ("differentiable", "needs_prompt"):
        if not isinstance(getattr(scorer, name), bool):
            yield f"{name} is {getattr(scorer, name)!r}; set it to True or False"
    if not isinstance(scorer.unit, str) or not scorer.unit.strip():
        yield f"unit is {scorer.unit!r}; say scale and range in words, such as 'cosine, in [-1, 1]': reports print it"
    for name in ("runtime_env", "default_options"):
        if not isinstance(getattr(scorer, name, {}), dict):
            yield f"{name} is {getattr(scorer, name)!r}; set it to a dict"


def _answer(scorer: Any) -> Problems:
    """Form of an answer, for several images, for one, and for another size."""
    images = example_images()
    for given in (images, images[:1], example_images(OTHER_SIZE_HW)):
        prompts = PROMPTS[: len(given)]
        what = f"{len(given)} images of {given.shape[2]} x {given.shape[3]}"
        try:
            scores = scorer.score(given.copy(), list(prompts))
        except Exception as error:  # whatever a user's scorer raises
            yield f"score raised on {what}: {_said(error)}; any number of images of any size must do"
            return
        if problem := form_problem("score", scores, (len(given),), what):
            yield problem
            return
        if not np.isfinite(scores).all():
            yield f"score gave {scores} for {what}: noise around grey; NaN and infinity count as failures, give numbers"


def _behaviour(scorer: Any) -> Problems:
    for check in (_inputs_stay, _same_again, _alone, _prompts, _nan):
        try:
            yield from islice(check(scorer), 1)
        except Exception as error:  # whatever a user's scorer raises
            yield f"{check.__doc__} raised {_said(error)}; make that work"


def _inputs_stay(scorer: Any) -> Problems:
    """Scoring an array that cannot be written to, as arrays come from Ray's object store"""
    images, prompts = example_images(), list(PROMPTS)
    scorer.score(images, prompts)
    if not np.array_equal(images, example_images()):
        yield "changes the images it is given, which other scorers get too; copy them before writing"
    if prompts != PROMPTS:
        yield "changes the list of prompts it is given; copy it before writing"
    images = example_images()
    images.setflags(write=False)
    scorer.score(images, prompts)


def _same_again(scorer: Any) -> Problems:
    """Scoring the same twice"""
    first, second = (scorer.score(example_images(), list(PROMPTS)) for _ in range(2))
    if not np.array_equal(first, second):
        yield (
            f"is not deterministic: the same images gave {first}, then {second}; put models in eval mode (dropout) and "
            f"draw nothing at random"
        )


def _alone(scorer: Any) -> Problems:
    """Scoring images alone and in another order"""
    images = example_images()
    together = scorer.score(images, list(PROMPTS))
    turned = scorer.score(images[::-1].copy(), PROMPTS[::-1])[::-1]
    alone = np.concatenate([scorer.score(images[b : b + 1], [PROMPTS[b]]) for b in range(len(images))])
    for how, scores in (("alone", alone), ("in reverse order", turned)):
        if not np.array_equal(scores, together):
            off = float(np.abs(scores - together).max())
            yield (
                f"a score depends on the images that are scored with it: {how} they differ by up to {off:.2g}, and "
                f"service batches form by chance. Use no statistics of the batch (mean, ranks, softmax over it), and "
                f"run a tower on chunks of one padded size (see rayalign.rewards.tower), as matrix products of "
                f"another shape round differently"
            )


def _prompts(scorer: Any) -> Problems:
    """Scoring with other prompts"""
    images = np.repeat(example_images()[:1], len(PROMPTS), axis=0)
    same = len(set(scorer.score(images, list(PROMPTS)).tolist())) == 1
    if same and scorer.needs_prompt:
        yield f"needs_prompt is True, yet {len(PROMPTS)} prompts gave one image one score; use the prompt or set False"
    if not same and not scorer.needs_prompt:
        yield "needs_prompt is False, yet the score of an image changes with its prompt; set needs_prompt to True"


def _nan(scorer: Any) -> Problems:
    """Scoring an image with NaN pixels, as a diverged model draws"""
    images = example_images()
    expected = scorer.score(images, list(PROMPTS))
    images[1, :, 3:9] = np.nan
    try:
        scores = scorer.score(images, list(PROMPTS))
    except Exception:  # an error is no score either; the pair is dropped and counted
        return
    if np.isfinite(scores[1]):
        yield (
            f"an image with NaN pixels got the score {scores[1]:.4g}; give NaN or raise, so that the pair is dropped. "
            f"A cast to uint8, np.nan_to_num and max(0, .) turn NaN into a number"
        )
    others = np.arange(len(images)) != 1
    if not np.array_equal(scores[others], expected[others]):
        yield "an image with NaN pixels changes the scores of the others; score each image by itself"


def _gradient(scorer: Any) -> Problems:
    if scorer.differentiable:
        yield from gradient_problems(scorer, example_images(), list(PROMPTS))


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
