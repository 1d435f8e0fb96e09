from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rayalign.errors import CheckpointError
from rayalign.learning.good_policy import good_version, load_good, save_good


def test_the_last_one_kept_comes_back_bit_for_bit(tmp_path: Path) -> None:
    first, last = ({"a.lora_B": np.full((2, 3), value, np.float32)} for value in (1.0, np.pi))
    save_good(tmp_path, 0, first)
    save_good(tmp_path, 4, last)
    found = load_good(tmp_path, 4)
    assert found.keys() == last.keys()
    np.testing.assert_array_equal(found["a.lora_B"], last["a.lora_B"])
    assert good_version(tmp_path) == 4
    assert [path.name for path in tmp_path.iterdir()] == ["good_policy.safetensors"]


def test_a_missing_one_and_another_version_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds policy version None, not 4"):
        load_good(tmp_path, 4)
    assert good_version(tmp_path) is None
    save_good(tmp_path, 2, {"a": np.zeros(1, np.float32)})
    with pytest.raises(CheckpointError, match="holds policy version 2, not 4"):
        load_good(tmp_path, 4)
