import math

import pytest

from rayalign.evaluation.formatting import decimals, duration, interval, number, percent


@pytest.mark.parametrize(
    # A width of 0.062 has its second digit in the third decimal; 25 has it before the point.
    ("low", "high", "expected"),
    [(0.481, 0.543, 3), (-3.4, -3.0, 2), (10, 35, 0), (1, 1, 3), (0, math.nan, 3), (0, 1e-9, 6)],
)
def test_decimals(low, high, expected):
    assert decimals(low, high) == expected


def test_numbers_carry_their_sign_and_say_when_they_are_missing():
    assert number(-1.25, 1, sign=True) == "−1.2"  # Python rounds half to even
    assert number(0.5, 2, sign=True) == "+0.50"
    assert number(None) == number(math.nan) == "–"


def test_intervals():
    assert interval({"mean": 0.512, "ci95": [0.481, 0.543]}) == ("0.512", "[0.481, 0.543]")
    assert interval({"mean": 0.5, "ci95": [None, None]}) == ("0.5", "")
    assert interval(None) == interval({"mean": None}) == ("–", "")
    assert percent({"mean": 0.625, "ci95": [0.5, 0.734]}) == ("62.5%", "[50.0, 73.4]")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "0.25 s"), (42.31, "42.3 s"), (754, "12 min 34 s"), (7380, "2 h 3 min"), (None, "–")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
