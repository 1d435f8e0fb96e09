from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rayalign.errors import ConfigError
from rayalign.evaluation.part_files import PartFiles, part_table

SETTINGS = {"batch": 2, "models": {"first": "runs/first"}}


def part(number: int) -> pa.Table:
    images = np.full((2, 4, 4, 3), number, np.uint8)
    table = part_table([2 * number, 2 * number + 1], ["a", "b"], [7, 8], images)
    return table.append_column("jpeg", pa.array([1.5, None], pa.float32()))


def test_parts_come_back_in_their_order(tmp_path: Path) -> None:
    files = PartFiles(tmp_path, ["base"], 3)
    files.begin(SETTINGS)
    for number in (2, 0):
        files.write("base", number, part(number))
    assert files.missing("base") == [1]
    files.write("base", 1, part(1))
    found = files.read("base", ["jpeg"])
    assert [int(image.max()) for image in found.images] == [0, 0, 1, 1, 2, 2]
    np.testing.assert_array_equal(np.isnan(found.scores["jpeg"]), [False, True] * 3)


def test_half_a_file_is_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = PartFiles(tmp_path, ["base"], 1)
    files.begin(SETTINGS)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        files.write("base", 0, part(0))
    assert files.missing("base") == [0]


def test_other_settings_are_refused_and_more_models_are_not(tmp_path: Path) -> None:
    PartFiles(tmp_path, ["base", "first"], 1).begin(SETTINGS)
    PartFiles(tmp_path, ["base", "second"], 1).begin(SETTINGS | {"models": {"second": "runs/second"}})
    with pytest.raises(ConfigError, match=r"batch 2 -> 4"):
        PartFiles(tmp_path, ["base"], 1).begin(SETTINGS | {"batch": 4})
    with pytest.raises(ConfigError, match=r"models.first runs/first -> runs/other"):
        PartFiles(tmp_path, ["base"], 1).begin(SETTINGS | {"models": {"first": "runs/other"}})
