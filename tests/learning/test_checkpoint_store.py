from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rayalign.errors import CheckpointError
from rayalign.learning.checkpoint_store import CheckpointStore, Newest
from tests.learning.checkpoints import assert_equal, assert_same, example

NOTHING = np.zeros((1, 2), dtype=np.float32)


@pytest.fixture(params=["folder", "file://", "memory://", "local://"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """One local folder by two names, a store without folders, and a folder by way of fsspec."""
    named = {"folder": str(tmp_path / "ours"), "memory://": f"memory://{uuid.uuid4()}/ours"}
    return named.get(request.param, f"{request.param}{tmp_path}/ours")


def names(store: CheckpointStore) -> list[str]:
    return [name for name in store.place.names() if name.startswith("iteration")]


@pytest.mark.parametrize("previous", [None, {"a.lora_A": NOTHING}])
def test_comes_back_bit_for_bit(root: str, previous: dict[str, np.ndarray] | None) -> None:
    written = example(previous=previous, held_out=0.5)
    store = CheckpointStore.at(root)
    store.save(written)
    assert names(store) == ["iteration-000001"]
    for reader in (store, CheckpointStore.at(root)):
        assert reader.newest() == Newest(1)
        assert_equal(reader.load(1), written)
        assert_same(reader.policy(1), written.policy)
        assert reader.text(1, "history.jsonl") == written.history
        assert json.loads(reader.text(1, "state.json"))["config"] == written.config


def test_before_the_first_there_is_none(root: str) -> None:
    store = CheckpointStore.at(root)
    assert (store.newest(), store.best(), store.is_used()) == (Newest(0), None, False)


def test_before_the_first_step_the_optimizer_is_empty(root: str) -> None:
    store = CheckpointStore.at(root)
    store.save(example(optimizer={}))
    assert store.load(1).optimizer == {}


def test_the_newest_are_kept_and_the_best_besides(root: str) -> None:
    store = CheckpointStore.at(root, keep=2)
    for done, held_out in ((1, 0.1), (2, 0.3), (9, None), (10, 0.3), (11, 0.2)):
        store.save(example(done, held_out=held_out))
    assert names(store) == ["iteration-000002", "iteration-000010", "iteration-000011"]
    assert (store.best(), store.newest().done) == (2, 11)
    store.save(example(12, held_out=0.31))
    assert names(store) == ["iteration-000011", "iteration-000012"]
    assert store.best() == 12


def test_measurements_of_other_things_do_not_compare(root: str) -> None:
    """A run may go on with another held-out scorer."""
    store = CheckpointStore.at(root, keep=1)
    store.save(example(1, held_out=500.0, held_out_by="jpeg"))
    store.save(example(2, held_out=0.3, held_out_by="clip"))
    assert store.best() == 2
    store.save(example(3, held_out=0.2, held_out_by="clip"))
    assert names(store) == ["iteration-000002", "iteration-000003"]


def test_a_reference_that_did_not_change_is_written_once(root: str) -> None:
    store = CheckpointStore.at(root, keep=2)
    first = example(1)
    part = store.save(first)
    for done in (2, 3):
        assert store.save(example(done, reference=part)) == part
    assert store.place.names("shared") == [part.path.removeprefix("shared/")]
    assert "reference.safetensors" not in store.place.names("iteration-000003")
    assert_same(CheckpointStore.at(root).load(3).reference, first.reference)  # type: ignore[arg-type]
    # A changed one is another file, and the old one goes with the last checkpoint that named it.
    other = store.save(example(4))
    assert len(store.place.names("shared")) == 2
    store.save(example(5, reference=other))
    assert store.place.names("shared") == [other.path.removeprefix("shared/")]
    assert_same(store.load(4).reference, example(4).reference)  # type: ignore[arg-type]


def test_going_back_takes_away_what_came_after(root: str) -> None:
    store = CheckpointStore.at(root, keep=5)
    for done in range(1, 5):
        store.save(example(done))
    store.discard_after(2)
    assert store.newest() == Newest(2)
    # As it does if a run that resumed before damaged ones saves again: they are of a future that was given up.
    for done in (3, 4):
        store.save(example(done))
    harm(store, 4, "policy.safetensors", b"")
    store.save(example(3, held_out=1.0))
    assert names(store) == [f"iteration-00000{done}" for done in (1, 2, 3)]
    assert CheckpointStore.at(root).load(3).held_out == 1.0


def test_another_stores_newest_is_taken_over_whole(root: str, tmp_path: Path) -> None:
    source, target = CheckpointStore.at(root), CheckpointStore.at(str(tmp_path / "target"))
    part = source.save(example(6))
    source.save(example(7, reference=part))
    target.copy_from(source, 7)
    assert CheckpointStore.at(str(tmp_path / "target")).newest() == Newest(7)
    assert_equal(target.load(7), source.load(7))


def harm(store: CheckpointStore, done: int, name: str, data: bytes | None) -> None:
    """Behind the store's back."""
    path = store.manifest(done).parts[name].path if name != "manifest.json" else f"iteration-{done:06d}/{name}"
    store.place.remove(path)
    if data is not None:
        with store.place.scratch() as scratch:
            (scratch / "damage").write_bytes(data)
            store.place.put(scratch / "damage", path)


def flip(store: CheckpointStore, done: int) -> None:
    data = bytearray(store.place.read(store.manifest(done).parts["policy.safetensors"].path))
    data[-1] ^= 1
    harm(store, done, "policy.safetensors", bytes(data))


def truncate(store: CheckpointStore, done: int) -> None:
    data = store.place.read(store.manifest(done).parts["optimizer.safetensors"].path)
    harm(store, done, "optimizer.safetensors", data[:-4])


def forget(store: CheckpointStore, done: int) -> None:
    tree = json.loads(store.place.read(f"iteration-{done:06d}/manifest.json"))
    del tree["parts"]["policy.safetensors"]
    harm(store, done, "manifest.json", json.dumps(tree).encode())


def escape(store: CheckpointStore, done: int, path: str = "iteration-000001/../../../.profile") -> None:
    tree = json.loads(store.place.read(f"iteration-{done:06d}/manifest.json"))
    tree["parts"]["policy.safetensors"]["path"] = path
    harm(store, done, "manifest.json", json.dumps(tree).encode())


DAMAGES: dict[str, tuple[Any, str]] = {
    "no manifest": (lambda s, n: harm(s, n, "manifest.json", None), "manifest.json is missing, so its writing was cut"),
    "half a manifest": (lambda s, n: harm(s, n, "manifest.json", b'{"parts'), "manifest.json is not one"),
    "zeros for a manifest": (lambda s, n: harm(s, n, "manifest.json", b"\0" * 99), "manifest.json is not one"),
    "a manifest of something else": (lambda s, n: harm(s, n, "manifest.json", b"[]"), "manifest.json is not one"),
    "a manifest that forgets": (forget, "does not name all of"),
    "a manifest that leads outside": (escape, "names files outside the checkpoints"),
    "a flipped byte": (flip, "policy.safetensors is not what was written"),
    "a short file": (truncate, "optimizer.safetensors is not what was written"),
    "a missing file": (lambda s, n: harm(s, n, "state.json", None), "state.json is missing"),
    "no reference": (lambda s, n: harm(s, n, "reference.safetensors", None), "reference.safetensors is missing"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_passed_over_and_named(root: str, damage: str) -> None:
    writer = CheckpointStore.at(root)
    for done in (1, 2):
        writer.save(example(done))
    act, message = DAMAGES[damage]
    act(writer, 2)
    reader = CheckpointStore.at(root)
    found = reader.newest()
    assert (found.done, len(found.problems)) == (1, 1)
    assert "iteration-000002 is damaged" in found.problems[0]
    with pytest.raises(CheckpointError, match=message):
        reader.load(2)
    act(CheckpointStore.at(root), 1)
    found = CheckpointStore.at(root).newest()
    assert (found.done, len(found.problems)) == (0, 2)
    assert found.damaged


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_first_one_that_was_cut_off_is_told_from_a_damaged_one(root: str, damage: str) -> None:
    """After the one a run begins anew; the other holds work that somebody may want to save."""
    CheckpointStore.at(root).save(example(1))
    DAMAGES[damage][0](CheckpointStore.at(root), 1)
    assert CheckpointStore.at(root).newest().damaged == ("manifest" not in damage)


def test_what_a_dead_writer_left_in_a_folder_goes(tmp_path: Path) -> None:
    left = tmp_path / ".partial"
    left.mkdir()
    (left / "policy.safetensors").write_bytes(b"half")
    store = CheckpointStore.at(str(tmp_path))
    assert store.newest() == Newest(0)
    store.save(example(2))
    assert store.newest() == Newest(2)
    assert not left.exists()


def test_a_full_disk_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = CheckpointStore.at(str(tmp_path))
    store.save(example(1))

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.place, "put", full)
    with pytest.raises(CheckpointError, match=r"No space left on device.*free some space, or set `checkpoints` to"):
        store.save(example(2))
    assert CheckpointStore.at(str(tmp_path)).newest().done == 1


def test_a_uri_that_nothing_opens_says_so() -> None:
    with pytest.raises(ValueError, match="nowhere"):
        CheckpointStore.at("nowhere://bucket/x")
