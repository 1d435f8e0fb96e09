import json
import math
from xml.etree import ElementTree

import numpy as np
import pytest

from rayalign.evaluation.bar_charts import MAX_BARS, rate_bar, stacked_bars
from rayalign.evaluation.chart_frame import LEFT, RIGHT, ticks
from rayalign.evaluation.charts import Curve, line_chart, overlay_chart, whisker


def test_ticks_are_round_numbers():
    assert ticks(0, 1) == pytest.approx([0, 0.5, 1])  # 0.25 apart would be 4: the next of 1, 2, 5 is 0.5
    assert ticks(-3.3, -2.7) == pytest.approx([-3.2, -3.0, -2.8])
    assert ticks(5, 5) == [5]


@pytest.mark.parametrize(
    ("y", "said"),
    [
        ([0, 1], ["0.0", "0.5", "1.0"]),
        ([0.00023, 0.00026], ["2.3e−4", "2.4e−4", "2.5e−4", "2.6e−4"]),
        ([-2e-5, 3e-5], ["−2e−5", "0", "2e−5"]),
        ([0.69310, 0.69314], ["0.69310", "0.69312", "0.69314"]),
    ],
)
def test_tick_numbers_differ_and_fit(y, said):
    svg = ElementTree.fromstring(line_chart(Curve([0, 1], y), "x"))
    texts = [text.text for text in svg.findall("text") if text.attrib["text-anchor"] == "end"]
    assert texts == said
    assert all(6.3 * len(text) < LEFT - 6 for text in texts)  # px of a digit at 11 px


def test_a_curve_is_an_svg_with_its_points():
    svg = ElementTree.fromstring(
        line_chart(Curve([0, 1, 2], [1.0, 3.0, 2.0], [0, 2, 1], [2, 4, 3]), "Loss <b>", 360)
    )
    points = json.loads(svg.attrib["data-points"])
    # x from LEFT to width - RIGHT; 1 is the lowest value, so furthest down.
    assert [point[0] for point in points] == [LEFT, LEFT + (360 - LEFT - RIGHT) / 2, 360 - RIGHT]
    assert points[0][1] > points[2][1] > points[1][1]
    assert points[1][2] == "1: 3"
    assert svg.attrib["aria-label"] == "Loss <b>"
    assert len(svg.findall("polygon")) == 1
    assert len(svg.findall("circle")) == 3


def test_gaps_lift_the_pen():
    chart = line_chart(Curve([0, 1, 2, 3, 4], [1, 2, math.nan, 2, 1]), "x")
    path = ElementTree.fromstring(chart).find("path").attrib["d"]
    assert path.count("M") == 2
    assert path.count("L") == 2
    assert "nan" not in chart


@pytest.mark.parametrize(
    "curve", [Curve([3], [1.5], [1], [2]), Curve([0, 1], [0.0, 0.0]), Curve([0, 1], [7.0, 7.0])]
)
def test_one_point_or_a_constant_can_be_drawn(curve):
    ElementTree.fromstring(line_chart(curve, "x"))


def test_nothing_to_draw():
    assert not Curve([0, 1], [math.nan] * 2).drawable


@pytest.mark.parametrize(
    ("bounds", "tone"),
    [((0.6, 0.8), "up"), ((0.2, 0.4), "down"), ((0.4, 0.6), "even"), ((None, None), "even")],
)
def test_whiskers_take_the_tone_of_what_is_certain(bounds, tone):
    svg = ElementTree.fromstring(whisker(0.5, *bounds, (0, 1), 0.5))
    assert svg.find("circle").attrib["class"] == tone
    assert svg.find("circle").attrib["cx"] == "60.0"  # the middle of 120


def test_no_mean_no_whisker():
    assert whisker(None, None, None, (0, 1), 0.5) == ""


def test_curves_of_different_lengths_share_one_frame():
    curves = {"a": Curve([0, 1], [0.0, 4.0]), "none": Curve([0], [math.nan]), "b": Curve([0, 2], [2, 2])}
    svg = ElementTree.fromstring(overlay_chart(curves, "x"))
    groups = svg.findall("g[@data-series]")
    assert [group.attrib["data-series"] for group in groups] == ["0", "2"]  # what is not drawn keeps its colour free
    points = json.loads(svg.attrib["data-points"])
    assert [point[2:] for point in points] == [["a, 0: 0", 0], ["a, 1: 4", 0], ["b, 0: 2", 2], ["b, 2: 2", 2]]
    assert points[1][0] == LEFT + (360 - LEFT - RIGHT) / 2  # iteration 1 of 0 to 2
    assert points[0][1] > points[2][1] > points[1][1]


def test_bars_stack_to_the_sum_of_their_parts():
    svg = ElementTree.fromstring(stacked_bars([0, 1], {"rollout": [1.0, 2.0], "training": [3.0, 2.0]}, "Time"))
    bars = [{key: float(r.attrib[key]) for key in ("x", "y", "height")} for r in svg.findall("rect")]
    assert [r.attrib["class"] for r in svg.findall("rect")] == ["fill0", "fill1"] * 2
    assert bars[0]["height"] * 3 == pytest.approx(bars[1]["height"], abs=0.3)  # 1 s and 3 s; px of one decimal
    assert bars[1]["y"] + bars[1]["height"] == pytest.approx(bars[0]["y"], abs=0.11)  # one on the other
    assert bars[1]["y"] == bars[3]["y"]  # both iterations took 4 s
    assert json.loads(svg.attrib["data-points"])[1][2] == "iteration 1\nrollout 2 s\ntraining 2 s"


def test_many_iterations_share_bars():
    n = 2 * MAX_BARS + 1  # 3 a bar
    svg = ElementTree.fromstring(stacked_bars(range(n), {"rollout": np.arange(n)}, "Time"))
    assert len(svg.findall("rect")) == -(-n // 3)
    assert json.loads(svg.attrib["data-points"])[0][2] == "iterations 0 to 2, mean\nrollout 1 s"


@pytest.mark.parametrize(("bounds", "tone"), [((0.6, 0.9), "up"), ((0.1, 0.4), "down"), ((0.4, 0.6), "even")])
def test_a_rate_is_a_bar_of_its_length(bounds, tone):
    svg = ElementTree.fromstring(rate_bar(0.75, *bounds))
    assert svg.findall("rect")[1].attrib == {
        "class": f"part {tone}", "x": "1", "y": "3", "width": "88.5", "height": "10", "rx": "2"
    }  # 0.75 of 118
    assert rate_bar(None, None, None) == ""
