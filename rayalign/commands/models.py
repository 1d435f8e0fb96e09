"""`rayalign models`: the models that ship, those whose shapes are known, and those in the hub's cache."""

from __future__ import annotations

import argparse

HEADINGS = ("model", "family", "denoiser", "on this machine")


def main(arguments: list[str]) -> int:
    argparse.ArgumentParser(
        prog="rayalign models",
        description="Lists the models that --model takes by name: the toys, the published ones whose shapes are known, "
        "and what the hub's cache holds of these families. Any diffusers folder or hub id of SD 1.5, SDXL or SD 3 "
        "goes as well. The network is not asked.",
        epilog="example:\n  rayalign models",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(arguments)
    print(listing())
    return 0


def listing() -> str:
    """The table as text."""
    cached = _cached()
    rows = [HEADINGS, *_toys(), *_published({row[0] for row in cached})]
    known = {row[0] for row in rows}
    rows += [row for row in cached if row[0] not in known]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _toys() -> list[tuple[str, ...]]:
    from rayalign.config import ModelConfig
    from rayalign.models.shapes import read_shapes
    from rayalign.toy import TOY_MODELS

    found: list[tuple[str, ...]] = []
    for name in (name for name in TOY_MODELS if name != "toy-clip"):
        shapes = read_shapes(ModelConfig(path=name))
        found.append((name, shapes.family.name, _size(shapes.denoiser), "ships with the package"))
    return found


def _published(cached: set[str]) -> list[tuple[str, ...]]:
    from rayalign.config import ModelConfig
    from rayalign.models.families import FAMILIES
    from rayalign.models.shapes import read_shapes

    found: list[tuple[str, ...]] = []
    for family in FAMILIES.values():
        for name in family.published:
            where = "in the hub's cache" if name in cached else "not fetched yet"
            found.append((name, family.name, _size(read_shapes(ModelConfig(path=name)).denoiser), where))
    return found


def _cached() -> list[tuple[str, ...]]:
    """Pipelines of our families in the hub's cache, read off their model_index.json."""
    import json
    from pathlib import Path

    from huggingface_hub import scan_cache_dir, try_to_load_from_cache
    from huggingface_hub.errors import CacheNotFound

    from rayalign.models.families import FAMILIES

    classes = {family.pipeline_class: family.name for family in FAMILIES.values()}
    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return []
    found: list[tuple[str, ...]] = []
    for repository in sorted(repositories, key=lambda one: one.repo_id):
        file = try_to_load_from_cache(repository.repo_id, "model_index.json")
        if isinstance(file, str):
            family = classes.get(json.loads(Path(file).read_text()).get("_class_name"))
            if family is not None:
                found.append((repository.repo_id, family, "", "in the hub's cache"))
    return found


def _size(denoiser: object) -> str:
    total = sum(value.numel() for value in denoiser.parameters())  # type: ignore[attr-defined]
    return f"{total / 1e6:,.1f} M weights" if total < 1e8 else f"{total / 1e9:.2f} B weights"
