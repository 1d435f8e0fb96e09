"""A CLIP of transformers from a folder, all of it: transformers itself goes on with random weights for missing ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers

from rayalign.rewards.tower import frozen


def load_clip(kind: Any, option: str, folder: Path, device: torch.device) -> torch.nn.Module:
    """The model in float32, frozen and in eval mode.

    Args:
        kind: class of transformers, such as CLIPModel. May take a part of what the folder holds.
        option: the scorer's, that errors name.
        folder: config.json and weights.
        device: where it goes.

    Raises:
        ValueError: the folder cannot be read, or lacks weights of `kind`.
    """
    try:
        with _no_report():
            model, found = kind.from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
            )
    except Exception as error:  # a file of any other kind can raise anything
        raise ValueError(f"{option} = {str(folder)!r}: no {kind.__name__} could be loaded: {error}") from error
    # Both would be drawn at random; named here, where transformers' own error only points to a report.
    absent = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    if absent:
        raise ValueError(
            f"{option} = {str(folder)!r}: {len(absent)} weights of a {kind.__name__} are not there or of another shape "
            f"than its config.json says, {absent[0]} the first; set a folder or hub id of a whole one"
        )
    return frozen(model, device)


def projected(answer: Any) -> torch.Tensor:
    """The embedding in what `get_image_features` or `get_text_features` answers: an object as of transformers 5."""
    return getattr(answer, "pooler_output", answer)


@contextmanager
def _no_report() -> Iterator[None]:
    """Taking the image tower alone out of a whole CLIP is meant; transformers would warn of each weight left."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)
