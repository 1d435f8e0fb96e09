from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rayalign.errors import CheckpointError
from rayalign.learning.checkpoint_place import open_place
from rayalign.learning.good_policy import good_version, load_good, save_good


@pytest.mark.parametrize("uri", ["{}", "file://{}", "memory://good{}"])
def test_the_last_one_kept_comes_back_bit_for_bit(uri: str, tmp_path: Path) -> None:
    place = open_place(uri.format(tmp_path))
    first, last = ({"a.lora_B": np.full((2, 3), value, np.float32)} for value in (1.0, np.pi))
    save_good(place, 0, first)
    save_good(place, 4, last)
    found = load_good(place, 4)
    assert found.keys() == last.keys()
    np.testing.assert_array_equal(found["a.lora_B"], last["a.lora_B"])
    assert good_version(place) == 4
    assert place.names() == ["good_policy.safetensors"]


def test_a_missing_one_and_another_version_are_refused(tmp_path: Path) -> None:
    place = open_place(str(tmp_path))
    with pytest.raises(CheckpointError, match="holds no policy, not version 4"):
        load_good(place, 4)
    assert good_version(place) is None
    save_good(place, 2, {"a": np.zeros(1, np.float32)})
    with pytest.raises(CheckpointError, match="holds policy version 2, not version 4"):
        load_good(place, 4)
