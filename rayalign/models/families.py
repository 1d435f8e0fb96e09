"""The families, and which one a model is of. Reads model_index.json, no weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rayalign.errors import ConfigError
from rayalign.hub import hub_silence
from rayalign.models.family import Family, Published
from rayalign.models.sd3 import SD3
from rayalign.models.sd15 import SD15
from rayalign.models.sdxl import SDXL
from rayalign.models.stub import Stub
from rayalign.toy import TOY_MODELS, toy_path

_FAMILIES: tuple[Family, ...] = (SD15(), SDXL(), SD3(), Stub())
FAMILIES = {family.name: family for family in _FAMILIES}


def find_published(path: str, family: str = "auto") -> tuple[Family, Published] | None:
    """A hub id's family and shapes, where its family's file has them. Raises ConfigError if it is of another family."""
    _check_name(family)
    known = [one for one in FAMILIES.values() if path in one.published]
    if known and family not in ("auto", known[0].name):
        raise ConfigError("model.family", family, f"{path} is of the family {known[0].name}; leave it at auto")
    return (known[0], known[0].published[path]) if known else None


def _check_name(family: str) -> None:
    if family != "auto" and family not in FAMILIES:
        names = ", ".join(FAMILIES)
        raise ConfigError("model.family", family, f"set auto, which reads it from the model, or one of: {names}")


def resolve_path(path: str) -> str:
    """A toy's name -> its folder in this package; a folder of the user's home written out; anything else unchanged."""
    return str(toy_path(path)) if path in TOY_MODELS else str(Path(path).expanduser()) if path[0] == "~" else path


def find_family(path: str, family: str = "auto") -> Family:
    """The family a model says it is. Reads only model_index.json; local folders are checked for missing parts.

    Raises ConfigError if it cannot be read, is of another kind, or lacks a component.
    """
    _check_name(family)
    if path.split(":")[0] == "stub":
        return FAMILIES["stub"]
    index = read_index(path)
    by_class = {known.pipeline_class: known for known in FAMILIES.values()}
    class_name = str(index.get("_class_name"))
    chosen = by_class.get(class_name) if family == "auto" else FAMILIES[family]
    if chosen is None:
        raise ConfigError("model.path", path, f"it is a {class_name}; set a model that is one of {sorted(by_class)}")
    if family != "auto" and by_class.get(class_name, chosen) is not chosen:
        fix = f"{path} is a {class_name}, family {by_class[class_name].name}; leave it at auto"
        raise ConfigError("model.family", family, fix)
    if Path(resolve_path(path)).is_dir():
        _check_parts(path, chosen, index)
    return chosen


def read_index(path: str) -> dict[str, Any]:
    """model_index.json of a folder, a toy or a hub id. Raises ConfigError if it cannot be read."""
    path = resolve_path(path)
    folder = Path(path)
    if folder.is_dir():
        try:
            return dict(json.loads((folder / "model_index.json").read_text()))
        except (OSError, ValueError, TypeError) as error:
            fix = f"the folder has no readable model_index.json ({error}); set a diffusers model folder"
            raise ConfigError("model.path", path, fix) from error
    if path.startswith((".", "/")) or path.count("/") != 1:
        known = ", ".join(TOY_MODELS)
        raise ConfigError("model.path", path, f"no such folder; set a folder, a hub id (owner/name) or one of: {known}")
    from diffusers import DiffusionPipeline

    silent = hub_silence()
    try:
        return DiffusionPipeline.load_config(path, local_files_only=bool(silent))
    except Exception as error:  # the hub client raises many kinds: no such model, gated, network gone
        why = f"is not in the hub's local cache, and {silent}" if silent else f"cannot be read from the hub ({error})"
        fix = "set a local folder, or see to the network" if silent else "set a local folder"
        raise ConfigError("model.path", path, f"{why}; {fix}") from error


def _check_parts(path: str, family: Family, index: dict[str, Any]) -> None:
    folder = Path(resolve_path(path))
    for part in sorted(family.required):
        if part not in index or not (folder / part).is_dir():
            fix = f"the folder has no {part}/, which {family.pipeline_class} needs; set a complete diffusers folder"
            raise ConfigError("model.path", path, fix)
