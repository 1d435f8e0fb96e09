"""Train worker 0's side of the board: tells it versions and records, and all of them again once it was restarted."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from rayalign.pipeline.board import RECORDS_KEPT, answer
from rayalign.records import IterationRecord, PublishedWeights

LOOK_S = 1.0  # between looks whether the board was restarted; nobody draws until it knows the versions again


class Publisher:
    """Keeps what the board must know: an object lives as long as its owner, this process, holds a reference.

    Args:
        board: the PolicyBoard's handle.
        keep_versions: how many policy versions are held.
        timeout_s: for one answer of the board.
        records: of iterations before this worker started, from the checkpoint.
    """

    def __init__(
        self, board: Any, keep_versions: int, timeout_s: float, records: Iterable[IterationRecord] = ()
    ) -> None:
        self._board, self._keep, self._timeout_s = board, keep_versions, timeout_s
        self._versions: dict[int, tuple[list[Any], PublishedWeights]] = {}
        self._records: dict[int, IterationRecord] = {}
        self._lock = threading.Lock()
        self._life = answer(board.life.remote(), timeout_s, "who it is")
        for record in records:  # the driver may have missed some
            self.record(record)
        self._closed = threading.Event()
        threading.Thread(target=self._watch, name="publisher", daemon=True).start()

    def publish(self, published: PublishedWeights, reference: Any) -> None:
        """One more version; `reference` is the object that holds its arrays."""
        with self._lock:
            self._versions[published.version] = ([reference], published)
            for old in sorted(self._versions)[: -self._keep]:
                del self._versions[old]
        self._tell(self._board.publish.remote([reference], published))

    def record(self, record: IterationRecord) -> None:
        """What the driver shows; its checkpoint has it too."""
        with self._lock:
            self._records[record.iteration] = record
            for old in sorted(self._records)[:-RECORDS_KEPT]:
                del self._records[old]
        self._tell(self._board.record.remote(record))

    def close(self) -> None:
        self._closed.set()

    def _tell(self, reference: Any) -> None:
        answer(reference, self._timeout_s, "train worker 0")

    def _watch(self) -> None:
        while not self._closed.wait(LOOK_S):
            try:
                life = ray.get(self._board.life.remote(), timeout=self._timeout_s)
                if life != self._life:
                    self._tell_all()
                    self._life = life
            except (RayError, GetTimeoutError):
                continue  # it is being restarted, or died again meanwhile

    def _tell_all(self) -> None:
        with self._lock:
            versions, records = [self._versions[v] for v in sorted(self._versions)], list(self._records.values())
        calls = [self._board.publish.remote(boxed, published) for boxed, published in versions]
        ray.get(calls + [self._board.record.remote(record) for record in records], timeout=self._timeout_s)
