"""What a run should be told in plain words: a scorer that always answers the same, an iteration of nothing but ties.

Each is said once, however many iterations and actors meet it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rayalign.evaluation.image_set import ImageSet
from rayalign.records import KEPT, SMALL_GAP, TIE, IterationRecord
from rayalign.rewards.statistics import bucket, moments_of

TIES = "ties"
Found = dict[str, str]  # what it is about -> the sentence


def of_iteration(record: IterationRecord) -> Found:
    """Of one trained iteration."""
    number = record.number
    found = {
        name: _constant(name, value, images, different, f"of iteration {number}")
        for name, (value, images, different) in record.extra.get("constant", {}).items()
    }
    ties = record.counts.get(f"pairs_{TIE}", 0)
    if ties and not any(record.counts.get(f"pairs_{status}", 0) for status in (KEPT, SMALL_GAP)):
        found[TIES] = (
            f"all {ties} pairs of iteration {number} that have rewards are ties, so that it taught nothing: the "
            f"reward does not tell candidates apart. Set another --reward, or one that differs in finer steps"
        )
    return found


def of_pictures(pictures: ImageSet) -> Found:
    """Of the pictures before tuning: held-out scorers answer for no others."""
    seen = [bucket(image) for image in pictures.images]
    moments = {name: moments_of(scores, seen) for name, scores in pictures.scores.items()}
    return {
        name: _constant(name, one.mean, one.count, one.different, "before tuning")
        for name, one in moments.items()
        if one.says_nothing
    }


def _constant(scorer: str, value: float, images: float, different: float, when: str) -> str:
    return (
        f"scorer {scorer} answered {value:g} for all {images:.0f} images {when}, at least {different:.0f} of them "
        f"different: it tells nothing apart. Look at its options, its weights and the size and range of the images it "
        f"expects"
    )


def warnings(history: Iterable[IterationRecord], before: ImageSet | None = None) -> list[str]:
    """Each thing once, in the words of its first time, with how often it came back."""
    first: Found = of_pictures(before) if before is not None else {}
    again = dict.fromkeys(first, 0)
    for record in history:
        for about, sentence in of_iteration(record).items():
            again[about] = again[about] + 1 if about in first else 0
            first.setdefault(about, sentence)
    return [sentence + _also(again[about]) for about, sentence in first.items()]


def _also(times: int) -> str:
    return f" (also in {times} further iteration{'s' * (times > 1)})." if times else "."


class SaidOnce:
    """For a log: lets a thing through the first time."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def fresh(self, found: Mapping[str, str]) -> list[str]:
        """Sentences about what was not spoken of yet."""
        new = [f"{sentence}." for about, sentence in found.items() if about not in self._said]
        self._said.update(found)
        return new
