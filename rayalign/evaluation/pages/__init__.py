"""The pages' templates, and how they are filled in.

A page is one file: the style sheet and the script are put inside. It asks no network for anything (its own content
policy forbids it), and every text that a person or a prompt file supplied is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rayalign.evaluation.charts import series_tone
from rayalign.whole_files import write_whole

FOLDER = Path(__file__).parent
MAX_SERIES = 24  # in one legend


def render_page(template: str, context: Mapping[str, Any]) -> str:
    """The page as text. `template` is a file of this folder; a name that it uses and `context` lacks is an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FileSystemLoader(FOLDER),
    )
    tones = [series_tone(i) for i in range(MAX_SERIES)]
    return environment.get_template(template).render(context, tones=tones)


def write_page(path: Path, text: str) -> Path:
    """In one move: a reader, or a browser reloading, never sees half a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text)
    return path
