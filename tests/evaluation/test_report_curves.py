from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

from rayalign.evaluation.report_curves import curves, probe_curves
from rayalign.records import IterationRecord


def record(i: int, metrics: dict[str, float], **counts: int) -> IterationRecord:
    return IterationRecord(i, i + 1, metrics, counts, {}, 0)


def drawn(chart: dict[str, Any]) -> list[str]:
    return [point[2] for point in json.loads(ElementTree.fromstring(chart["svg"]).attrib["data-points"])]


def test_the_probe_has_a_place_of_its_own() -> None:
    history = [record(0, {"loss": 1.0}), record(1, {"loss": 0.5, "heldout/clip": 0.25, "image/edge_density": 0.5})]
    assert [chart["title"] for chart in probe_curves(history)] == ["clip", "edge density"]
    assert drawn(probe_curves(history)[0]) == ["2: 0.25"]  # of the iteration that measured it
    assert [chart["title"] for chart in curves(history)] == ["Loss", "Lag"]


def test_one_raw_scorers_curve_is_not_drawn_twice() -> None:
    same = [record(0, {"heldout/reward": 0.5, "heldout/jpeg": 0.5, "heldout/clip": 1.0})]
    assert [chart["title"] for chart in probe_curves(same)] == ["jpeg", "clip"]
    weighed = [record(0, {"heldout/reward": 0.5, "heldout/jpeg": 5.0})]
    assert [chart["title"] for chart in probe_curves(weighed)] == ["reward", "jpeg"]


def test_drops_and_skipped_steps_are_drawn_where_there_were_any() -> None:
    # pairs_guided counts kept pairs of a kind: it says nothing of what became of pairs.
    fine = [record(0, {}, pairs_kept=8, pairs_guided=8, skipped_steps=0)]
    assert [chart["title"] for chart in curves(fine)] == ["Lag"]
    history = [*fine, record(1, {}, pairs_kept=6, pairs_tie=1, pairs_score_raised=1, skipped_steps=2)]
    found = {chart["title"]: drawn(chart) for chart in curves(history)}
    assert found["Pairs dropped"] == ["1: 0", "2: 0.25"]
    assert found["Steps skipped"] == ["1: 0", "2: 2"]


def test_nothing_yet() -> None:
    assert curves([]) == probe_curves([]) == []
