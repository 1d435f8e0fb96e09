from __future__ import annotations

import os
from pathlib import Path

import pytest

from rayalign import weight_files
from rayalign.weight_files import weights_stamp


def test_other_weights_have_another_stamp_and_copies_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, data in (("one", b"abc"), ("copy", b"abc"), ("other", b"abd")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lora.safetensors").write_bytes(data)
        (tmp_path / name / "README.md").write_text(name)  # no weights
    one, copy, other = (weights_stamp(tmp_path / name) for name in ("one", "copy", "other"))
    assert one == copy != other
    assert weights_stamp(tmp_path / "one" / "lora.safetensors") not in ("", other)
    assert weights_stamp("somebody/on-the-hub") == ""
    monkeypatch.setattr(weight_files, "STAMPED_BYTES", 2)  # a large one, by its time
    stamp = weights_stamp(tmp_path / "one")
    os.utime(tmp_path / "one" / "lora.safetensors", (1, 1))
    assert weights_stamp(tmp_path / "one") != stamp
