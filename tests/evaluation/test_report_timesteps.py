from __future__ import annotations

import json
import math
from xml.etree import ElementTree

from rayalign.evaluation.report_timesteps import timestep_charts
from rayalign.records import IterationRecord


def history(values: list[dict[int, float]]) -> list[IterationRecord]:
    return [
        IterationRecord(i, i + 1, {f"accuracy_by_tenth/{tenth}": v for tenth, v in found.items()}, {}, {}, 0)
        for i, found in enumerate(values)
    ]


def test_early_and_late_are_quarters_of_the_run() -> None:
    # 8 iterations, 2 a quarter: tenth 2 has 0.5 and 0.7 at first, 0.9 and 1 at last; tenth 5 was measured once early.
    values = [{2: 0.5, 5: 0.25}, {2: 0.7}, *[{2: 0.0}] * 4, {2: 0.9, 5: 0.5}, {2: 1.0, 5: math.nan}]
    (chart,) = timestep_charts(history(values))
    assert chart["title"] == "Accuracy by timestep"
    assert chart["legend"] == [(0, "last 2 iterations"), (1, "first 2 iterations")]
    points = json.loads(ElementTree.fromstring(chart["svg"]).attrib["data-points"])
    assert [point[2] for point in points] == [
        "last 2 iterations, 2: 0.95",
        "last 2 iterations, 5: 0.5",
        "first 2 iterations, 2: 0.6",
        "first 2 iterations, 5: 0.25",
    ]


def test_of_one_iteration_there_is_no_late() -> None:
    (chart,) = timestep_charts(history([{0: 0.5}]))
    assert chart["legend"] == [(0, "iteration 1")]


def test_a_run_without_them_has_no_chart() -> None:
    assert timestep_charts(history([{}, {}])) == timestep_charts([]) == []
