"""The same prompts and seeds of several runs, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rayalign.evaluation.formatting import decimals, number
from rayalign.evaluation.image_set import read_index, spread
from rayalign.evaluation.report_pictures import MAX_BYTES, data_uri

MAX_IMAGES = 128  # on the page, of all runs together
Row = dict[str, Any]


def runs_cards(folders: dict[str, dict[str, Path]], one_model: bool) -> dict[str, Any]:
    """{"cards", "total", "orders"} of prompts and seeds that every run with pictures after tuning has.

    `folders`: run -> {"before", "after"} -> folder. The picture before tuning leads where all runs have `one_model`,
    else it would be of one of them. "orders": (name for a list, key of a card's changes) of gains from before to after.
    """
    sides = {name: _rows(found["after"]) for name, found in folders.items() if "after" in found}
    places = {name: folders[name]["after"] for name in sides}
    if not sides:
        return {"cards": [], "total": 0, "orders": []}
    first = next((found["before"] for found in folders.values() if "before" in found), None)
    if one_model and first is not None:
        sides, places = {"before": _rows(first), **sides}, {"before": first, **places}
    common = [key for key in next(iter(sides.values())) if all(key in rows for rows in sides.values())]
    every = [rows[key]["scores"] for rows in sides.values() for key in common]
    scorers = [name for name in (every[0] if every else ()) if all(name in scores for scores in every)]
    digits = {name: _digits([scores[name] for scores in every]) for name in scorers}
    cards: list[dict[str, Any]] = []
    room = MAX_BYTES
    for order, i in enumerate(spread([prompt for prompt, _ in common], max(1, MAX_IMAGES // len(sides)))):
        rows = {side: found[common[i]] for side, found in sides.items()}
        images = _images(rows, places)
        room -= sum(len(image["uri"]) for image in images)
        if room < 0 and cards:
            break
        cards.append(
            {
                "order": order,
                "prompt": common[i][0],
                "seed": common[i][1],
                "images": images,
                "scores": [_score(rows, name, digits[name]) for name in scorers],
                "changes": _changes(rows, scorers) if "before" in rows else {},
            }
        )
    runs = [side for side in sides if side != "before"] if "before" in sides else []
    orders = [(f"{name} of {run}", _key(run, name)) for run in runs for name in scorers]
    return {"cards": cards, "total": len(common), "orders": orders}


def _rows(folder: Path) -> dict[tuple[str, int], Row]:
    return {(row["prompt"], row["seed"]): row for row in read_index(folder)}


def _digits(scores: list[float | None]) -> int:
    values = [value for value in scores if value is not None]
    return decimals(min(values), max(values)) + 1 if values else 3


def _images(rows: dict[str, Row], places: dict[str, Path]) -> list[dict[str, Any]]:
    found = []
    for side, row in rows.items():
        encoded = data_uri(places[side] / Path(row["file"]).name)  # `.name`: an index cannot point outside its folder
        if encoded is not None:
            found.append({"side": side, "uri": encoded[0], "small": encoded[1]})
    return found


def _score(rows: dict[str, Row], name: str, places: int) -> dict[str, str]:
    values = [row["scores"][name] for row in rows.values()]
    texts = ["failed" if value is None else number(value, places) for value in values]
    return {"scorer": name, "values": " · ".join(texts), "change": "", "tone": "even"}


def _changes(rows: dict[str, Row], scorers: list[str]) -> dict[str, float]:
    changes = {}
    for side, row in rows.items():
        for name in scorers:
            before, after = rows["before"]["scores"][name], row["scores"][name]
            if side != "before" and before is not None and after is not None:
                changes[_key(side, name)] = after - before
    return changes


def _key(run: str, scorer: str) -> str:
    return f"{run}\n{scorer}"
