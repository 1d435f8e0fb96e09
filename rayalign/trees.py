"""Settings as trees of plain values: set by dotted name, laid over one another, compared."""

from __future__ import annotations

from collections.abc import Mapping
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


def flat(tree: Mapping[str, Any], path: str = "") -> Tree:
    """Leaves by dotted name, as the command line has them."""
    found: Tree = {}
    for name, value in tree.items():
        found |= flat(value, f"{path}{name}.") if isinstance(value, Mapping) else {f"{path}{name}": value}
    return found


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """ "seed 0 -> 7" for each leaf that differs, by name; None stands for one that a side lacks."""
    old, new = flat(before), flat(now)
    different = [name for name in sorted(old | new) if old.get(name) != new.get(name)]
    return [f"{name} {old.get(name)} -> {new.get(name)}" for name in different]


def _same_kind(before: Tree, value: Tree) -> bool:
    """Whether a later layer goes on with a group, or chooses another kind of it, whose settings are others."""
    return value.get("kind", before.get("kind")) == before.get("kind")
