"""A preference set that is drawn when it is read: captioned shapes, for toy runs of the offline methods.

Winner and loser show the same scene; the winner's ground is plain, the loser's is hatched. So the set prefers what
a smaller JPEG does, without any model having been asked.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from rayalign.data.images import encode
from rayalign.data.preferences import PreferenceRow
from rayalign.records import derive_seed
from rayalign.toy.shapes import caption, draw_array, random_scene

NAME = "toy-preferences"
GROUPS, ROWS_A_GROUP = 16, 64


@dataclass(frozen=True)
class ToyPreferences:
    """A `PreferenceIndex` without files."""

    group_rows: tuple[int, ...] = (ROWS_A_GROUP,) * GROUPS
    stamp: str = "drawn-1"

    def read_group(self, group: int, offsets: Sequence[int]) -> list[PreferenceRow]:
        return [_row(group, offset) for offset in offsets]


def _row(group: int, offset: int) -> PreferenceRow:
    rng = random.Random(derive_seed(NAME, group, offset))
    scene = random_scene(rng)
    pictures = (replace(scene, hatching=0.0), replace(scene, hatching=1.0))
    winner, loser = (encode(draw_array(picture).round().astype(np.uint8)) for picture in pictures)
    return PreferenceRow(caption(scene, rng), winner, loser)
