"""What runs in the actors and tasks of a scoring. One row of a table is one picture:

part, place    which file of the result, which row of it
id, prompt     as in the result
pixels         uint8, (height, width, 3) as bytes; null where the image was not read
height, width
reason         why something is missing; empty if nothing is
<scorer> ...   float32, one added by each stage
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from rayalign.config import RewardConfig
from rayalign.data.images import pixels
from rayalign.data.picture import PartReader, Picture
from rayalign.errors import RayalignError
from rayalign.evaluation.score_table import UNREADABLE
from rayalign.pipeline.scoring.replica import fix_torch_threads
from rayalign.rewards.first_answer import check_first_answer
from rayalign.rewards.offline import one_line, score_pictures
from rayalign.rewards.own import is_own
from rayalign.rewards.table import build_scorer

PIXELS = ("pixels", "height", "width")


def read_part(part: pa.Table, reader: PartReader, resolution: int | None, batch: int) -> Iterator[pa.Table]:
    """A task of Ray Data's: one row of `part`, its number, and the pictures that the reader makes of the rest."""
    number = part["part"][0].as_py()
    pictures, place = reader(part.drop_columns(["part"])), 0
    while some := list(islice(pictures, batch)):
        yield _decoded(number, place, some, resolution)
        place += len(some)


def _decoded(part: int, first: int, pictures: Iterable[Picture], resolution: int | None) -> pa.Table:
    rows: list[dict[str, Any]] = []
    for place, picture in enumerate(pictures, first):
        image, reason = None, picture.reason
        if picture.data is not None:
            try:
                image = pixels(picture.data, resolution)
            except ValueError as error:
                reason = one_line(str(error).removeprefix("no image: "))
        height, width = (None, None) if image is None else image.shape[:2]
        rows.append(
            {
                "part": part,
                "place": place,
                "id": picture.id,
                "prompt": picture.prompt,
                "pixels": None if image is None else image.tobytes(),
                "height": height,
                "width": width,
                "reason": f"{UNREADABLE}{reason}" if reason else "",
            }
        )
    return pa.Table.from_pylist(rows, schema=_PICTURES)


_PICTURES = pa.schema(
    [
        *(("part", pa.int32()), ("place", pa.int32()), ("id", pa.string()), ("prompt", pa.string())),
        *(("pixels", pa.large_binary()), ("height", pa.int32()), ("width", pa.int32()), ("reason", pa.string())),
    ]
)


class ScoreActor:
    """Placed by Ray Data as one member of a scorer's pool; adds its column.

    Args:
        last: whether the pixels end here: what goes to the driver is small.
    """

    def __init__(self, reward: RewardConfig, batch: int, cpu_threads: int, last: bool) -> None:
        self._name, self._batch, self._last = reward.scorer, batch, last
        try:
            self._scorer = build_scorer(reward)
            fix_torch_threads(cpu_threads)
            if is_own(reward.scorer):
                check_first_answer(reward.scorer, self._scorer)
        except Exception as error:  # whatever a scorer's constructor raises: it needs the scorer's name
            said = str(error) if isinstance(error, RayalignError) else f"{type(error).__name__}: {error}"
            raise RayalignError(f"scorer {reward.scorer} did not start: {said}") from error

    def __call__(self, table: pa.Table) -> pa.Table:
        images = [_image(row) for row in table.select(PIXELS).to_pylist()]
        scores_N, reasons = score_pictures(self._scorer, images, table["prompt"].to_pylist(), self._batch)
        told = [
            "; ".join(filter(None, [before, f"{self._name}: {reason}" if reason else ""]))
            for before, reason in zip(table["reason"].to_pylist(), reasons, strict=True)
        ]
        table = table.append_column(self._name, pa.array(scores_N, pa.float32(), mask=np.isnan(scores_N)))
        table = table.set_column(table.schema.get_field_index("reason"), "reason", pa.array(told, pa.string()))
        return table.drop_columns(list(PIXELS)) if self._last else table


def _image(row: dict[str, Any]) -> np.ndarray | None:
    if row["pixels"] is None:
        return None
    return np.frombuffer(row["pixels"], dtype=np.uint8).reshape(row["height"], row["width"], 3)
