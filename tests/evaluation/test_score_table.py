"""What a scoring came to."""

from __future__ import annotations

import pyarrow as pa

from rayalign.data.score_files import score_schema
from rayalign.evaluation.score_table import score_text, summarise_scores, unscored_text

ROWS = [
    {"id": "a.png", "prompt": "a", "jpeg": -2.0, "clip": 0.5, "reason": None},
    {"id": "b.png", "prompt": None, "jpeg": -4.0, "clip": None, "reason": "clip: no prompt"},
    {"id": "c.png", "prompt": None, "jpeg": None, "clip": None, "reason": "jpeg: not finite; clip: no prompt"},
    {"id": "d.png", "prompt": "d", "jpeg": None, "clip": None, "reason": "image: the file is not there"},
    {"id": "e.png", "prompt": "e", "jpeg": -9.0, "clip": 0.25, "reason": None},
]
TABLE = pa.Table.from_pylist(ROWS, schema=score_schema(["jpeg", "clip"]))


def test_failures_are_in_no_average_and_images_that_were_not_read_are_apart() -> None:
    summary = summarise_scores(TABLE, ["jpeg", "clip"], ["-kB", "cosine"])
    assert (summary["num_images"], summary["num_unreadable"]) == (5, 1)
    # jpeg: -2, -4, -9; one was not finite, one image was not read.
    assert summary["scorers"]["jpeg"] == {"mean": -5.0, "median": -4.0, "scored": 3, "failed": 1, "unit": "-kB"}
    assert summary["scorers"]["clip"] == {"mean": 0.375, "median": 0.375, "scored": 2, "failed": 2, "unit": "cosine"}
    assert summary["reasons"] == {"clip: no prompt": 2, "jpeg: not finite": 1, "image: the file is not there": 1}
    assert [row["id"] for row in summary["without_score"]] == ["b.png", "c.png", "d.png"]


def test_nothing_scored_has_no_mean() -> None:
    summary = summarise_scores(TABLE.slice(3, 1), ["jpeg"], ["-kB"])
    assert summary["scorers"]["jpeg"] == {"mean": None, "median": None, "scored": 0, "failed": 0, "unit": "-kB"}
    assert "–" in score_text(summary)


def test_as_text() -> None:
    summary = summarise_scores(TABLE, ["jpeg", "clip"], ["-kB", "cosine"])
    assert score_text(summary).splitlines() == [
        "scorer   mean  median  scored  failed  scale",
        "jpeg       −5      −4       3       1  -kB",
        "clip    0.375   0.375       2       2  cosine",
    ]
    told = unscored_text(summary, most=2).splitlines()
    assert told[0].startswith("1 of 5 images could not be read")
    assert told[1:3] == ["  b.png: clip: no prompt", "  c.png: jpeg: not finite; clip: no prompt"]
    assert "column `reason`" in told[3]
    assert unscored_text(summarise_scores(TABLE.slice(0, 1), ["jpeg"], ["-kB"])) == ""
