"""What train worker 0 does about a collapse: judges each measurement, keeps the last good policy, raises the alarm."""

from __future__ import annotations

from typing import Any

from rayalign.config import RunConfig
from rayalign.evaluation.collapse import CollapseWatch
from rayalign.learning.checkpoint_place import Place
from rayalign.learning.good_policy import Arrays, good_version, save_good
from rayalign.learning.guards import Alarm
from rayalign.records import HeldOut, IterationRecord


class CollapseGuard:
    """`evaluation.collapse` with its consequences. Its `state` goes into the checkpoint, the good policy beside it."""

    def __init__(self, config: RunConfig, place: Place) -> None:
        self._config, self._place = config, place
        self._watch = CollapseWatch(config.guard, config.heldout_names)
        self.state, self.trained = self._watch.state, self._watch.trained

    @property
    def begun(self) -> bool:
        """The untuned model was measured."""
        return self._watch.begun

    def resume(self, state: dict[str, Any], version: int, policy: Arrays) -> None:
        """Goes on with `state`. Where the policy it would go back to was left behind (resumed elsewhere), the one that
        the run is resumed from takes its place.
        """
        self._watch.restore(state)
        if self.begun and good_version(self._place) != self._watch.last_good:
            self._watch.last_good = version
            self._keep(version, policy)

    def begin(self, untuned: HeldOut, initial: Arrays) -> None:
        self._watch.begin(untuned)
        self._keep(0, initial)

    def look(self, record: IterationRecord, found: HeldOut, policy: Arrays) -> tuple[Alarm | None, dict[str, Any]]:
        """The alarm, and what the record then says besides. A warning is given once; a run that acts does so again."""
        verdict = self._watch.look(found, record.metrics)
        if verdict is None:
            return None, {}
        if not verdict.collapsed:
            self._keep(found.version, policy)
            return None, {}
        if self._watch.alarmed and self._config.guard.on_collapse == "warn":
            return None, {}
        self._watch.alarmed = True
        rolls_back = self._config.guard.on_collapse == "rollback"
        return Alarm("collapse", str(verdict)), {"rollback": self._watch.last_good} if rolls_back else {}

    def _keep(self, version: int, policy: Arrays) -> None:
        if self._config.guard.on_collapse == "rollback":
            save_good(self._place, version, policy)
