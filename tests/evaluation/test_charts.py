import json
import math
from xml.etree import ElementTree

import pytest

from rayalign.evaluation.charts import LEFT, RIGHT, Curve, line_chart, ticks, whisker


def test_ticks_are_round_numbers():
    assert ticks(0, 1) == pytest.approx([0, 0.5, 1])  # 0.25 apart would be 4: the next of 1, 2, 5 is 0.5
    assert ticks(-3.3, -2.7) == pytest.approx([-3.2, -3.0, -2.8])
    assert ticks(5, 5) == [5]


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
