"""A writer killed at any byte or removal leaves a checkpoint that loads: 200 moments in a folder, 200 in a bucket."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
from pyarrow.fs import FSSpecHandler, PyFileSystem

from rayalign.learning.checkpoint_place import LocalPlace, Place, RemotePlace
from rayalign.learning.checkpoint_store import CheckpointStore
from tests.learning.checkpoints import assert_equal, assert_same, example

KILLS = 100  # each of four ways
OPERATION = 150  # bytes that a rename, an upload's start or a removal counts as: the moments between must be hit too
BEFORE = 3  # iterations done when the deadly save begins
BEST = 1


class Killed(BaseException):
    """No handler of the code under test may see it, as none sees a SIGKILL."""


class Life:
    """Bytes left to write before the kill."""

    def __init__(self, left: int) -> None:
        self.left = left

    def spend(self, count: int) -> int:
        """How many of `count` bytes are still written."""
        written = max(0, min(count, self.left))
        self.left -= count
        return written


class MortalFolder(LocalPlace):
    """Dies in a file of scratch, or with `torn` in one that has its final name already, as a cache that lied leaves."""

    def __init__(self, root: Path, life: Life, torn: bool) -> None:
        super().__init__(root)
        self._life, self._torn = life, torn

    def put(self, file: Path, path: str) -> None:
        data = file.read_bytes()
        written = self._life.spend(len(data) + OPERATION)
        if written < len(data) + OPERATION:
            file.write_bytes(data[:written] + b"\0" * (len(data) // 2 - written))
            if self._torn:
                super().put(file, path)
            raise Killed
        super().put(file, path)

    def remove(self, path: str) -> None:
        """File by file, the order a file system happens to have."""
        found = self.root / path
        for file in sorted(found.iterdir()) if found.is_dir() else [found]:
            if self._life.spend(OPERATION) < OPERATION:
                raise Killed
            file.unlink(missing_ok=True)
        super().remove(path)


class Bucket(MemoryFileSystem):
    """An object store: no rename, and what is written shows before it is whole if uploads are `torn`."""

    cachable = False

    def __init__(self, life: Life, torn: bool, store: dict[str, MemoryFile]) -> None:
        super().__init__()
        self.life, self.torn, self.store, self.pseudo_dirs = life, torn, store, [""]

    def _open(self, path: str, mode: str = "rb", **settings: Any) -> MemoryFile:
        if mode != "wb":
            return super()._open(path, mode, **settings)
        self._pay()
        upload = Upload(self, self._strip_protocol(path))
        upload.before = self.store.get(upload.path)
        upload.commit()
        return upload

    def _pay(self) -> None:
        if self.life.spend(OPERATION) < OPERATION:
            raise Killed

    def rm_file(self, path: str) -> None:
        self._pay()
        super().rm_file(path)

    def mv(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("an object store has no rename")


class Upload(MemoryFile):
    before: MemoryFile | None

    def write(self, data: Any) -> int:
        written = self.fs.life.spend(len(data))
        super().write(bytes(data[:written]))
        if written < len(data):
            if not self.fs.torn:  # what was there stays
                self.fs.store.pop(self.path)
                if self.before is not None:
                    self.fs.store[self.path] = self.before
            raise Killed
        return written


@pytest.fixture(autouse=True)
def no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """These kills end the process, not the power, and what it wrote the system still has."""
    monkeypatch.setattr("rayalign.learning.checkpoint_place._flush", lambda path: None)


def folder(tmp_path: Path, torn: bool) -> Callable[[Life], Place]:
    """A copy of the same beginning each time."""
    begin(LocalPlace(tmp_path / "begun"))
    root = tmp_path / "run"

    def make(life: Life) -> Place:
        shutil.rmtree(root, ignore_errors=True)
        shutil.copytree(tmp_path / "begun", root)
        return MortalFolder(root, life, torn)

    return make


def bucket(tmp_path: Path, torn: bool) -> Callable[[Life], Place]:
    begun: dict[str, MemoryFile] = {}
    begin(bucket_place(Life(10**9), torn, begun))
    return lambda life: bucket_place(life, torn, dict(begun))


def bucket_place(life: Life, torn: bool, store: dict[str, MemoryFile]) -> Place:
    return RemotePlace(PyFileSystem(FSSpecHandler(Bucket(life, torn, store))), "/runs/ours", "bucket://runs/ours")


def begin(place: Place) -> None:
    store = CheckpointStore(place, keep=2)
    part = store.save(example(1, held_out=0.9))
    for done in range(2, BEFORE + 1):
        part = store.save(example(done, reference=part, held_out=0.1))


def cost(make: Callable[[Life], Place]) -> int:
    life = Life(10**9)
    CheckpointStore(make(life), keep=2).save(example(BEFORE + 1))
    return 10**9 - life.left


@pytest.mark.parametrize("torn", [False, True], ids=["whole", "torn"])
@pytest.mark.parametrize("kind", [folder, bucket])
def test_every_kill_leaves_a_checkpoint_that_loads(kind: Any, torn: bool, tmp_path: Path) -> None:
    make = kind(tmp_path, torn)
    whole, draw = cost(make), random.Random(0)
    written = {done: example(done) for done in range(1, BEFORE + 2)}
    newest_after = []
    for moment in (draw.randrange(whole) for _ in range(KILLS)):
        life = Life(moment)
        place = make(life)
        with pytest.raises(Killed):
            CheckpointStore(place, keep=2).save(written[BEFORE + 1])
        life.left = 10**9  # the next process
        store = CheckpointStore(place, keep=2)
        newest = store.newest()
        assert newest.done in (BEFORE, BEFORE + 1)
        found = store.load(newest.done)
        assert_same(found.policy, written[newest.done].policy)
        assert_same(found.optimizer, written[newest.done].optimizer)
        assert found.history == written[newest.done].history
        assert store.best() == BEST
        assert_same(store.policy(BEST), written[BEST].policy)
        newest_after.append(newest.done)
        # And the run goes on from there, as if nothing had been.
        store.save(written[BEFORE + 1])
        assert CheckpointStore(place).newest().done == BEFORE + 1
        assert_equal(store.load(BEFORE + 1), written[BEFORE + 1])
        assert set(store.place.names()) == {"iteration-000001", "iteration-000003", "iteration-000004", "shared"}
        assert len(store.place.names("shared")) == 2
    # Some came before the manifest was there, some in the tidying after it.
    assert {BEFORE, BEFORE + 1} == set(newest_after)


@pytest.mark.parametrize("torn", [False, True], ids=["whole", "torn"])
@pytest.mark.parametrize("kind", [folder, bucket])
def test_a_kill_while_another_runs_checkpoint_is_taken_over_leaves_none_or_a_whole_one(
    kind: Any, torn: bool, tmp_path: Path
) -> None:
    source = CheckpointStore(LocalPlace(tmp_path / "source"))
    source.save(example(5))
    draw = random.Random(1)
    for number in range(40):
        life = Life(draw.randrange(4000))
        root = tmp_path / f"target-{number}"
        place = MortalFolder(root, life, torn) if kind is folder else bucket_place(life, torn, {})
        try:
            CheckpointStore(place).copy_from(source, 5)
        except Killed:
            life.left = 10**9
            assert CheckpointStore(place).newest().done == 0
            assert not CheckpointStore(place).newest().damaged
            CheckpointStore(place).copy_from(source, 5)
        assert CheckpointStore(place).newest().done == 5
        assert_equal(CheckpointStore(place).load(5), example(5))
