"""The settings of a group, leaf by leaf, as a command line has them."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined


def settings(group: type[BaseModel], path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every leaf setting by its dotted name. A union's members share the union's name; each leaf says whose it is."""
    for name, field in group.model_fields.items():
        members = _members(field.annotation)
        if len(members) > 1:
            yield from _union(members, field, f"{path}{name}")
        elif members:
            inside = settings(members[0], f"{path}{name}.")
            # Where a job has narrowed a union to one member there is no kind to choose.
            yield from (leaf for leaf in inside if leaf[0] != f"{path}{name}.kind")
        else:
            yield f"{path}{name}", field


def _union(members: list[type[BaseModel]], field: FieldInfo, path: str) -> Iterator[tuple[str, FieldInfo]]:
    """`<path>.kind`, then each leaf of any member once, with the kinds that have it."""
    kinds = [str(member.model_fields["kind"].default) for member in members]
    text = f"{field.description or 'which one'}: {', '.join(kinds)}"
    default = getattr(field.default, "kind", PydanticUndefined)
    yield f"{path}.kind", FieldInfo(annotation=str, default=default, description=text)
    found: dict[str, tuple[FieldInfo, list[str]]] = {}
    for kind, member in zip(kinds, members, strict=True):
        for leaf, info in settings(member, f"{path}."):
            found.setdefault(leaf, (info, []))[1].append(kind)
    found.pop(f"{path}.kind")
    for leaf, (info, having) in found.items():
        described = copy(info)
        described.description = f"({', '.join(having)}) {info.description or ''}"
        yield leaf, described


def _members(kind: Any) -> list[type[BaseModel]]:
    """The groups that a setting may hold: one, several (a union told apart by `kind`), or none."""
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]
