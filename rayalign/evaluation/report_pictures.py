"""The report's picture pairs: what to show, as data URIs inside the page."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

from PIL import Image

from rayalign.evaluation.formatting import decimals, number
from rayalign.evaluation.image_set import read_index, spread

MAX_PAIRS = 64  # shown; more would make a page of hundreds of MB, and nobody scrolls that far
MAX_BYTES = 6_000_000  # of all pictures, so that the page stays below 8 MB however noisy they are
MAX_SIDE = 384  # px; larger pictures are shown as thumbnails, the folder keeps the originals
LOSSLESS_SIDE = 128  # px; pictures up to this size go in as they are: JPEG smears small ones


def pair_cards(before: Path | None, after: Path | None) -> dict[str, Any]:
    """{"cards", "total", "scorers", "paired"}; rows of both folders are matched by prompt and seed."""
    folder = before or after
    rows = read_index(folder) if folder else []
    others = {_key(row): row for row in read_index(after)} if before and after else {}
    shown = spread([row["prompt"] for row in rows], MAX_PAIRS)
    scorers = list(rows[0]["scores"]) if rows else []
    matched = [(row, others.get(_key(row))) for row in rows]
    places = {name: _places(matched, name) for name in scorers}
    cards: list[dict[str, Any]] = []
    room = MAX_BYTES
    for order, i in enumerate(shown):
        row, other = matched[i]
        images = _images(row, other, before, after)
        room -= sum(len(image["uri"]) for image in images)
        if room < 0 and cards:
            break
        changes = {name: _change(row, other, name) for name in scorers}
        cards.append(
            {
                "order": order,
                "prompt": row["prompt"],
                "seed": row["seed"],
                "images": images,
                "scores": [_score(row, other, name, places[name]) for name in scorers],
                "changes": {name: value for name, value in changes.items() if value is not None},
            }
        )
    return {"cards": cards, "total": len(rows), "scorers": scorers, "paired": bool(others)}


def data_uri(path: Path) -> tuple[str, bool] | None:
    """A picture as a data URI and whether it is small (its pixels show as squares); None if unreadable."""
    try:
        picture = Image.open(path).convert("RGB")
    except OSError:
        return None
    small = max(picture.size) <= LOSSLESS_SIDE
    buffer = io.BytesIO()
    if small:
        picture.save(buffer, "PNG", optimize=True)
    else:
        picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
        picture.save(buffer, "JPEG", quality=85)
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}", small


def _images(
    row: dict[str, Any], other: dict[str, Any] | None, before: Path | None, after: Path | None
) -> list[dict[str, Any]]:
    """The one or two pictures of a card, each with its side's name."""
    wanted = [("before", before, row), ("after", after, other if before else row)]
    found = []
    for side, folder, entry in wanted:
        if folder is None or entry is None:
            continue
        # `.name`, so that an index cannot point outside its folder.
        encoded = data_uri(folder / Path(entry["file"]).name)
        if encoded is not None:
            found.append({"side": side, "uri": encoded[0], "small": encoded[1]})
    return found


def _score(row: dict[str, Any], other: dict[str, Any] | None, name: str, places: int) -> dict[str, str]:
    values = [_text(entry["scores"].get(name), places) for entry in (row, other) if entry is not None]
    change = _change(row, other, name)
    tone = "even" if not change else "up" if change > 0 else "down"
    return {
        "scorer": name,
        "values": " → ".join(values),
        "change": number(change, places, sign=True) if change is not None else "",
        "tone": tone,
    }


def _change(row: dict[str, Any], other: dict[str, Any] | None, name: str) -> float | None:
    before, after = (entry["scores"].get(name) if entry else None for entry in (row, other))
    return None if before is None or after is None else after - before


def _text(value: float | None, places: int) -> str:
    return "failed" if value is None else number(value, places)


def _places(matched: list[tuple[dict[str, Any], dict[str, Any] | None]], name: str) -> int:
    """Decimals of one scorer on all cards: enough for the spread of its values, before and after, no more."""
    entries = [entry for pair in matched for entry in pair if entry is not None]
    values = [entry["scores"][name] for entry in entries if entry["scores"].get(name) is not None]
    return decimals(min(values), max(values)) + 1 if values else 3


def _key(row: dict[str, Any]) -> tuple[str, int]:
    return row["prompt"], row["seed"]
