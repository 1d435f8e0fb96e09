import numpy as np
import pytest

from rayalign.evaluation.comparison import before_after_table, compare, overoptimised
from rayalign.evaluation.image_set import ImageSet


def make(**scores):
    n = len(next(iter(scores.values())))
    prompts = [f"p{i // 2}" for i in range(n)]
    values = {name: np.float32(value) for name, value in scores.items()}
    return ImageSet(prompts, list(range(n)), np.zeros((n, 4, 4, 3), np.uint8), values)


def test_every_number_of_one_scorer():
    result = compare(make(jpeg=[1, 2, 3, 4]), make(jpeg=[2, 2, 5, 3]), ["jpeg"], [], {"jpeg": "-kB"})["jpeg"]
    # Changes +1, 0, +2, -1: mean 0.5. Wins 1, 1/2, 1, 0: 0.625. Means 2.5 and 3.
    # Prompt sums before are 3 and 7 of 2 each: resamples are 1.5, 2.5 or 3.5, the ends with probability 1/4.
    assert result["before"] == {"mean": 2.5, "ci95": [1.5, 3.5], "n": 4}
    assert result["after"]["mean"] == 3.0
    assert result["change"] == {"mean": 0.5, "ci95": [0.5, 0.5], "n": 4}  # both prompts gain 1 in all
    assert result["win_rate"]["mean"] == 0.625
    assert (result["guiding"], result["unit"]) == (True, "-kB")
    assert (result["failed"], result["num_prompts"]) == (0, 2)


def test_a_failed_score_takes_its_pair_out_of_all_four():
    before, after = make(jpeg=[1, 2, 3, np.nan]), make(jpeg=[2, np.inf, 5, 9])
    result = compare(before, after, [], ["jpeg"])["jpeg"]
    # Pairs 0 and 2 remain: before 2, after 3.5, change 1.5.
    assert [result[key]["mean"] for key in ("before", "after", "change")] == [2.0, 3.5, 1.5]
    assert [result[key]["n"] for key in ("before", "after", "change", "win_rate")] == [2] * 4
    assert result["failed"] == 2
    assert not result["guiding"]


def test_other_prompts_are_no_comparison():
    with pytest.raises(ValueError, match="same prompts"):
        compare(make(jpeg=[1, 2]), make(jpeg=[1, 2, 3, 4]), ["jpeg"], [])


def test_guiding_up_and_heldout_down_is_called_by_its_name():
    before = make(jpeg=[0] * 8, clip=[1] * 8, other=[1] * 8)
    after = make(jpeg=[1] * 8, clip=[0.5] * 8, other=[2] * 8)
    result = compare(before, after, ["jpeg"], ["clip", "other"])
    assert overoptimised(result) == ["clip"]
    assert (
        overoptimised(compare(after, before, ["jpeg"], ["clip", "other"])) == []
    )  # the reward fell: just worse


def test_the_table_is_aligned_ascii_with_units_and_failures():
    before, after = (
        make(jpeg=[-3, -4, np.nan, -2], clip=[1, 1, 1, 1]),
        make(jpeg=[-2, -3, -1, -1], clip=[1, 1, 1, 1]),
    )
    text = before_after_table(compare(before, after, ["jpeg"], ["clip"], {"jpeg": "-kB at quality 95"}))
    header, rule, jpeg, clip, *rest = text.splitlines()
    assert text.isascii()
    for name in ("role", "before", "after", "change", "win rate", "pairs"):
        column = header.index(name)
        assert {line[column - 1] for line in (header, jpeg, clip)} == {" "}
        assert rule[column] == "-"
        assert jpeg[column] != " "
        assert clip[column] != " "
    assert (
        jpeg.startswith("jpeg")
    )
    assert (
        "guiding" in jpeg
    )
    assert (
        "+1" in jpeg
    )
    assert (
        jpeg.endswith("-kB at quality 95")
    )
    assert "held-out" in clip
    assert "50.0%" in clip
    assert "jpeg: pairs left out, since a score failed: 1" in rest
    assert "bootstrap over 2 prompts" in text


def test_nothing_scored_still_prints():
    nothing = make(jpeg=[np.nan] * 4)
    assert "jpeg" in before_after_table(compare(nothing, nothing, ["jpeg"], []))
    assert before_after_table({})
