"""Settings as trees of plain values: set by dotted name, laid over one another."""

from __future__ import annotations

from typing import Any

Tree = dict[str, Any]


def put(tree: Tree, field: str, value: Any) -> None:
    """Sets the leaf of a dotted name, making the groups on the way."""
    *path, name = field.split(".")
    for part in path:
        tree = tree.setdefault(part, {})
    tree[name] = value


def merged(layers: list[Tree]) -> Tree:
    """Later layers win; groups that both have are merged, unless the later one chooses another kind."""
    laid: Tree = {}
    for layer in layers:
        for key, value in layer.items():
            before = laid.get(key)
            if isinstance(value, dict) and isinstance(before, dict) and _same_kind(before, value):
                value = merged([before, value])
            laid[key] = value
    return laid


def _same_kind(before: Tree, value: Tree) -> bool:
    """Whether a later layer goes on with a group, or chooses another kind of it, whose settings are others."""
    return value.get("kind", before.get("kind")) == before.get("kind")
