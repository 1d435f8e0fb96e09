"""Tiny models that are real: three diffusers pipelines and an open_clip model, of coloured shapes.

They are committed with the code, so that everything can be tried and tested without a download.
Importing this package is light; what trains the models (`python -m rayalign.toy.train`) is imported only
when asked for.
"""

from __future__ import annotations

from pathlib import Path

TOY_MODELS = ("toy-sd15", "toy-sdxl", "toy-sd3", "toy-clip")
"""The toys: pipelines of Stable Diffusion, Stable Diffusion XL and Stable Diffusion 3, and an open_clip model."""

WEIGHTS = Path(__file__).resolve().parent / "weights"


def toy_path(name: str) -> Path:
    """The folder of the toy model `name`, for `from_pretrained(folder)` or open_clip's `local-dir:folder`."""
    if name not in TOY_MODELS:
        raise ValueError(f"no toy model is called {name!r}; the toy models are: {', '.join(TOY_MODELS)}")
    return WEIGHTS / name
