"""A preference set on disk, row by row: what a row is, how rows are fetched, and in which order.

A bad row is never an error here: it comes back with a status and a reason, so that it can be counted. What the reader
of each layout supplies is a `PreferenceIndex`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from rayalign.data.images import decodes
from rayalign.records import BROKEN, KEPT, derive_seed

FIELD = "pairs.path"  # the setting that errors name
NO_CAPTION = "no caption"
NO_IMAGE = "an image is missing"
BAD_IMAGE = "an image does not decode"
BAD_LABELS = "labels make no sense"
BAD_LINE = "the line is not a pair"

WINDOW = 1024  # rows that are shuffled among each other: enough that neighbours on disk do not meet in a batch


@dataclass(frozen=True)
class PreferenceRow:
    """One row. Where `status` is `kept`, caption and both images are there and `images.decode` takes them."""

    prompt: str
    winner: bytes | None  # an encoded image file
    loser: bytes | None
    status: str = KEPT  # kept, tie, unlabelled or broken, as in `records`
    reason: str = ""  # why it is broken


class PreferenceIndex(Protocol):
    """Where the rows of a set are. Small and picklable: it holds no image."""

    @property
    def group_rows(self) -> Sequence[int]:
        """Rows of each group, in order. A group is what costs one read to get any of its rows."""
        ...

    @property
    def stamp(self) -> str:
        """Another one once the set is written anew, so that nothing made of its rows outlives them."""
        ...

    def read_group(self, group: int, offsets: Sequence[int]) -> list[PreferenceRow]:
        """The rows at `offsets` within a group, in that order."""
        ...


def num_rows(index: PreferenceIndex) -> int:
    return sum(index.group_rows)


def read_rows(index: PreferenceIndex, row_numbers: Sequence[int]) -> list[PreferenceRow]:
    """The rows of these numbers, 0 to `num_rows` - 1, in the order asked for. Each group is read once.

    Raises:
        IndexError: a number beyond the set.
        ConfigError: a file cannot be read any more. That is no bad row, and counting it as such would hide it.
    """
    ends = np.cumsum(index.group_rows)
    if any(not 0 <= number < ends[-1] for number in row_numbers):
        raise IndexError(f"rows {list(row_numbers)} are not all among the {ends[-1]} of the set")
    places: dict[int, list[int]] = {}
    for place, group in enumerate(np.searchsorted(ends, row_numbers, side="right").tolist()):
        places.setdefault(group, []).append(place)
    found: dict[int, PreferenceRow] = {}
    for group, wanted in places.items():
        first = int(ends[group]) - index.group_rows[group]
        rows = index.read_group(group, [row_numbers[place] - first for place in wanted])
        found.update(zip(wanted, rows, strict=True))
    return [found[place] for place in range(len(row_numbers))]


def checked(prompt: str | None, winner: bytes | None, loser: bytes | None) -> PreferenceRow:
    """A row with a preference: kept, or broken and why. The first fault found is the one that counts."""
    # JSON can hold half a surrogate pair, which no tokenizer and no Arrow column takes.
    caption = (prompt or "").encode(errors="ignore").decode().strip()
    if not caption:
        return broken(NO_CAPTION)
    if winner is None or loser is None:
        return broken(NO_IMAGE, caption)
    if not (decodes(winner) and decodes(loser)):
        return broken(BAD_IMAGE, caption)
    return PreferenceRow(caption, winner, loser)


def broken(reason: str, prompt: str = "") -> PreferenceRow:
    return PreferenceRow(prompt, None, None, BROKEN, reason)


def count_rows(rows: Iterable[PreferenceRow]) -> dict[str, int]:
    """How many rows have each status; broken ones by reason: {"kept": 7, "tie": 2, "broken: no caption": 1}."""
    return dict(Counter(f"{row.status}: {row.reason}" if row.reason else row.status for row in rows))


def stamp_of(paths: Iterable[Path], *parts: object) -> str:
    """A hash of `parts`, and of size and time of change of `paths`: no file is read for it."""
    changes = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.blake2b(repr((changes, parts)).encode(errors="surrogatepass"), digest_size=8).hexdigest()


def epoch_order(group_rows: Sequence[int], seed: int, epoch: int, window: int = WINDOW) -> np.ndarray:
    """int64 (N,): every row number once, shuffled; a pure function of its arguments.

    Groups are shuffled, then gathered into windows of at least `window` rows, and rows are shuffled inside theirs. So
    rows that follow each other come from the few groups of a window (or of two), and a reader need not fetch a group
    for each; a set of no more than `window` rows is shuffled as a whole.

    Raises:
        ValueError: a window below one row.
    """
    if window < 1:
        raise ValueError(f"window = {window}: set it to at least 1")
    generator = np.random.default_rng(derive_seed(seed, "epoch", epoch))
    sizes = np.asarray(group_rows, dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    order = np.empty(int(sizes.sum()), dtype=np.int64)
    begin = end = 0
    for group in generator.permutation(len(sizes)):
        order[end : end + sizes[group]] = starts[group] + np.arange(sizes[group])
        end += int(sizes[group])
        if end - begin >= window:
            generator.shuffle(order[begin:end])
            begin = end
    generator.shuffle(order[begin:])
    return order
