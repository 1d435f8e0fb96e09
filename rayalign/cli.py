"""A job's command line: shorthands, every setting as a dotted option, a YAML file below them, clear refusals.

Later wins: a job's own defaults < toy settings (for toy models) < --config file < command line.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from rayalign.config import RewardConfig, RunConfig
from rayalign.errors import ConfigError, RayalignError
from rayalign.toy.settings import toy_settings

SHORTHANDS = {
    "--model": ("model.path", "hub id, local diffusers folder, or toy-sd15 / toy-sdxl"),
    "--prompts": ("prompts.source", "animals, shapes, or a .txt, .jsonl or .parquet file"),
}
Tree = dict[str, Any]


def main(description: str, defaults: Tree) -> None:
    """What a job file calls: parse, run, and end with a message instead of a traceback. Exits 2 on a bad setting."""
    try:
        config = parse(description, defaults, sys.argv[1:])
        if not os.environ.get("RAY_ADDRESS"):
            # An embedded Ray warns at every start unless this is explicit; read when Ray is imported.
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        # Now, not above: Ray and torch take seconds to import, and --help must not.
        from rayalign.pipeline.run import run

        run(config)
    except ConfigError as error:
        sys.exit(_complain(error, 2))
    except RayalignError as error:
        sys.exit(_complain(error, 1))
    except KeyboardInterrupt:
        sys.exit(_complain("stopped; the same command again goes on from the last checkpoint", 130))


def _complain(error: object, code: int) -> int:
    print(f"error: {error}", file=sys.stderr, flush=True)
    return code


def parse(description: str, defaults: Tree, arguments: list[str]) -> RunConfig:
    """Command line -> RunConfig. Raises ConfigError on the first setting that is wrong."""
    known = dict(settings(RunConfig))
    given = vars(_parser(description, known, defaults).parse_args(_checked(arguments, known)))
    from_file = _read_yaml(given.pop("config")) if given.get("config") else {}
    from_line: Tree = {}
    for field, value in given.items():
        if field == "reward":
            _put(from_line, "rewards", [_reward(text) for text in value])
        elif value is not None:
            _put(from_line, field, _value(field, value, known))
    model = _merged([defaults, from_file, from_line]).get("model")
    path = str(model.get("path")) if isinstance(model, dict) else ""
    return validate(_merged([defaults, toy_settings(path), from_file, from_line]))


def validate(tree: Tree) -> RunConfig:
    """A tree of settings -> RunConfig. Raises ConfigError with field, value and what to set."""
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "settings"
        if first["type"] == "extra_forbidden":
            raise _unknown(field, _names_beside(first["loc"])) from None
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "model_type":
            message = f"it is a group; set its members by name: {', '.join(sorted(_names_below(field)))}"
        value = first["input"] if not isinstance(first["input"], dict) else "..."
        raise ConfigError(field, value, message) from None


def _names_beside(loc: tuple[int | str, ...]) -> list[str]:
    """What an unknown name in a YAML file may have been meant to be: a setting, a group, or a reward's field."""
    if loc[0] == "rewards":
        return [f"rewards.{loc[1]}.{name}" for name in RewardConfig.model_fields]
    return [*dict(settings(RunConfig)), *RunConfig.model_fields]


def _names_below(group: str) -> list[str]:
    """Members of a group; `rewards.0` counts as one."""
    names = [name.removeprefix(f"{group}.") for name in dict(settings(RunConfig)) if name.startswith(f"{group}.")]
    return names or list(RewardConfig.model_fields)


def settings(group: type[BaseModel], path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every leaf setting by its dotted name."""
    for name, field in group.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from settings(kind, f"{path}{name}.")
        else:
            yield f"{path}{name}", field


def _parser(description: str, known: dict[str, FieldInfo], defaults: Tree) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description,
        usage="%(prog)s [--model NAME] [--reward SCORER[=WEIGHT]] [--prompts NAME] [--any.setting VALUE]",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML of settings; a run's own config.yaml repeats it")
    parser.add_argument(
        "--reward",
        action="append",
        default=argparse.SUPPRESS,
        metavar="SCORER[=WEIGHT]",
        help="scorer to train on; give it again for a weighted sum (jpeg, clip, toy-clip, my_package.my_module:Mine)",
    )
    for option, (field, text) in SHORTHANDS.items():
        parser.add_argument(option, dest=field, metavar="NAME", help=text)
    groups: dict[str, Any] = {"": parser}
    for field, info in known.items():
        if field == "rewards":
            continue
        section = field.rpartition(".")[0]
        if section not in groups:
            groups[section] = parser.add_argument_group(section)
        text = (info.description or "").replace("%", "%%")
        default = str(_default(field, info, defaults)).replace("%", "%%")
        groups[section].add_argument(f"--{field}", dest=field, metavar="", help=f"{text} [{default}]")
    return parser


def _default(field: str, info: FieldInfo, defaults: Tree) -> Any:
    tree: Any = defaults
    for part in field.split("."):
        tree = tree.get(part, PydanticUndefined) if isinstance(tree, dict) else PydanticUndefined
    value = info.default if tree is PydanticUndefined else tree
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else value


def _checked(arguments: list[str], known: dict[str, FieldInfo]) -> list[str]:
    """Refuses unknown options with the nearest known one, which argparse does not name."""
    # rewards is a list of groups: --reward sets it.
    options = [f"--{field}" for field in known if field != "rewards"]
    options += [*SHORTHANDS, "--config", "--reward", "--help"]
    for argument in arguments:
        name = argument.partition("=")[0]
        if name.startswith("--") and name not in options:
            raise _unknown(name, options)
    return arguments


def _unknown(name: str, known: list[str]) -> ConfigError:
    leaf = {option.rpartition(".")[2].lstrip("-"): option for option in known}
    last = name.rpartition(".")[2].lstrip("-")
    nearest = [leaf[last]] if last in leaf else difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    nearest = nearest or [leaf[close] for close in difflib.get_close_matches(last, leaf, 1, 0.0)]
    return ConfigError(name, "", f"no such setting; did you mean {nearest[0]}? --help lists all")


def _value(field: str, text: str, known: dict[str, FieldInfo]) -> Any:
    """YAML scalars; commas make a list where the setting is one."""
    if "tuple" in str(known[field].annotation):
        return [yaml.safe_load(part) for part in text.strip("[]() ").split(",") if part.strip()]
    kind = known[field].annotation
    if kind is str or get_origin(kind) is Literal:
        return text  # YAML would read the word no as false
    if str in get_args(kind):
        return None if text.lower() in ("null", "none", "~") else text
    try:
        return float(text) if "e" in text.lower() and text[0].isdigit() else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError):
        return text


def _reward(text: str) -> Tree:
    scorer, _, weight = text.partition("=")
    try:
        return {"scorer": scorer, "weight": float(weight or 1.0)}
    except ValueError:
        raise ConfigError("--reward", text, "set SCORER or SCORER=WEIGHT with a number") from None


def _read_yaml(name: str) -> Tree:
    try:
        tree = yaml.safe_load(Path(name).expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError("--config", name, f"cannot be read: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError("--config", name, "holds no settings; write them as in a run's config.yaml")
    return tree


def _put(tree: Tree, field: str, value: Any) -> None:
    *path, name = field.split(".")
    for part in path:
        tree = tree.setdefault(part, {})
    tree[name] = value


def _merged(layers: list[Tree]) -> Tree:
    merged: Tree = {}
    for layer in layers:
        for key, value in layer.items():
            both = isinstance(value, dict) and isinstance(merged.get(key), dict)
            merged[key] = _merged([merged[key], value]) if both else value
    return merged
