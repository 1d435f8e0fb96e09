"""A job's command line: shorthands, every setting as a dotted option, a YAML file below them, clear refusals.

Later wins: a job's own defaults < toy settings (for toy models) < the run to --resume < --config file < command line.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Callable
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from rayalign.config import PoolConfig, RewardConfig, RunConfig
from rayalign.config.files import read_settings
from rayalign.config.leaves import settings
from rayalign.entry import exit_code, settle_ray
from rayalign.errors import ALL_SETTINGS, ConfigError
from rayalign.toy.settings import toy_settings
from rayalign.trees import Tree, merged, put

SHORTHANDS = {
    "--model": ("model.path", "hub id, local diffusers folder, or toy-sd15 / toy-sdxl"),
    "--prompts": ("prompts.source", "animals, shapes, or a .txt, .jsonl or .parquet file"),
}
SCALES = (":raw", ":standardised")
Group = TypeVar("Group", bound=BaseModel)


def main(
    description: str,
    defaults: Tree,
    group: type[RunConfig] = RunConfig,
    start: Callable[[Any], object] | None = None,
    toy: Tree | None = None,
) -> None:
    """What a job file calls: parse, run, and end with a message instead of a traceback. Exits 2 on a bad setting.

    A job of several runs has settings of its own, `group`, which `start` takes, and `toy`, over those of any toy run.
    """

    def job() -> None:
        run_job(description, defaults, sys.argv[1:], group, start, toy)

    if code := exit_code(job, "stopped; the same command again goes on from the last checkpoint"):
        sys.exit(code)


def run_job(
    description: str,
    defaults: Tree,
    arguments: list[str],
    group: type[RunConfig] = RunConfig,
    start: Callable[[Any], object] | None = None,
    toy: Tree | None = None,
) -> None:
    """`main` without its ending: errors go to the caller."""
    planned_for, arguments = _dry_run(arguments)
    config = parse(description, defaults, arguments, group, toy)
    if planned_for is not None:
        _plan(config, planned_for)
        return
    settle_ray()
    (start or _run)(config)


def _plan(config: RunConfig, hardware: str) -> None:
    """Prints the plan. Where a run would be refused here, raises ConfigError after it: it may be for elsewhere."""
    from rayalign.pipeline.validate import check_files
    from rayalign.planning.dry_run import dry_run

    refused = None
    try:
        check_files(config.given())
    except ConfigError as error:
        refused = error
    print(dry_run(config, hardware))
    if refused is not None:
        raise refused


def _dry_run(arguments: list[str]) -> tuple[str | None, list[str]]:
    """What --dry-run names ("" for this machine, null where it is not given), and the arguments without it."""
    for place, argument in enumerate(arguments):
        if argument.partition("=")[0] == "--dry-run":
            after = arguments[place + 1 : place + 2]
            value = argument.partition("=")[2] or next((text for text in after if not text.startswith("-")), "")
            taken = 2 if value and "=" not in argument else 1
            return value, arguments[:place] + arguments[place + taken :]
    return None, arguments


def _run(config: RunConfig) -> None:
    # Now, not above, and in this order: Ray and torch take seconds to import, and a mistyped name must not.
    from rayalign.pipeline.validate import check_files

    check_files(config)
    from rayalign.pipeline.run import run

    run(config)


def parse(
    description: str, defaults: Tree, arguments: list[str], group: type[RunConfig] = RunConfig, toy: Tree | None = None
) -> RunConfig:
    """Command line -> `group`. Raises ConfigError on the first setting that is wrong."""
    known = dict(settings(group))
    given = vars(_parser(description, known, defaults).parse_args(_checked(arguments, known)))
    given.pop("dry_run", None)  # taken from the line before
    file = given.pop("config")
    from_file = {} if file is None else read_settings(file)
    from_line: Tree = {}
    for field, value in given.items():
        if field == "reward":
            put(from_line, "rewards", [_reward(text) for text in value])
        elif value is not None:
            put(from_line, field, _value(field, value, known))
    # A layer that leaves a kind out means the usual one, and one that names it must meet a name.
    usual: Tree = {}
    for field, info in known.items():
        if field.endswith(".kind"):
            put(usual, field, info.default)
    asked = merged([from_file, from_line])
    resumed = _settings_of(asked["resume"]) if asked.get("resume") else {}
    toys = toy_settings(merged([usual, defaults, asked]), asked)
    return validate(merged([usual, defaults, *toys, toy if toys and toy else {}, resumed, asked]), group)


def validate(tree: Tree, group: type[Group] = RunConfig) -> Group:  # type: ignore[assignment]
    """A tree of settings -> `group`. Raises ConfigError with field, value and what to set."""
    known = dict(settings(group))
    try:
        return group.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        loc, kind = _without_kind(first["loc"], known)
        field = ".".join(str(part) for part in loc) or ALL_SETTINGS
        value = first["input"] if not isinstance(first["input"], dict) else "..."
        if first["type"] == "union_tag_invalid":
            fix = f"no such kind; set one of {first['ctx']['expected_tags']}"
            raise ConfigError(f"{field}.kind", first["ctx"]["tag"], fix) from None
        if first["type"] == "extra_forbidden" and kind and field in known:
            union = field.rpartition(".")[0]
            raise ConfigError(field, value, f"{union}.kind = {kind} has no such setting; see --help") from None
        if first["type"] == "extra_forbidden":
            raise _unknown(field, _names_beside(first["loc"], group)) from None
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] in ("model_type", "model_attributes_type"):
            message = f"it is a group; set its members by name: {', '.join(sorted(_names_below(field, known)))}"
        raise ConfigError(field, value, message) from None


def _without_kind(loc: tuple[int | str, ...], known: dict[str, FieldInfo]) -> tuple[list[int | str], str]:
    """pydantic names a union's member in the path of an error: ("pairs", "final", "draws") -> (pairs, draws), final."""
    kinds = {name.removesuffix(".kind") for name in known if name.endswith(".kind")}
    path: list[int | str] = []
    kind = ""
    for part in loc:
        if ".".join(map(str, path)) in kinds and not kind:
            kind = str(part)
        else:
            path.append(part)
    return path, kind


def _names_beside(loc: tuple[int | str, ...], group: type[BaseModel]) -> list[str]:
    """What an unknown name in a YAML file may have been meant to be: a setting, a group, or a scorer's field."""
    if any(isinstance(part, int) for part in loc):  # one of a list, which are scorers
        one = ".".join(map(str, loc[:-1]))
        return [f"{one}.{name}" for name in _scorer_fields(one)]
    return [*dict(settings(group)), *group.model_fields]


def _names_below(group: str, known: dict[str, FieldInfo]) -> list[str]:
    """Members of a group; `rewards.0` counts as one."""
    names = [name.removeprefix(f"{group}.") for name in known if name.startswith(f"{group}.")]
    return names or _scorer_fields(group)


def _scorer_fields(group: str) -> list[str]:
    """Of `rewards.0`, or of its placement."""
    return list((PoolConfig if group.endswith(".placement") else RewardConfig).model_fields)


def _parser(description: str, known: dict[str, FieldInfo], defaults: Tree) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description,
        usage="%(prog)s [--model NAME] [--reward SCORER[=WEIGHT][:SCALE]] [--prompts NAME] [--any.setting VALUE]",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML of settings; a run's own config.yaml repeats it")
    parser.add_argument(
        "--dry-run",
        nargs="?",
        metavar="GPUS",
        help="start nothing; say what would start where, its memory and time on this machine, or on 1x24, 8xh100, ...",
    )
    parser.add_argument(
        "--reward",
        action="append",
        default=argparse.SUPPRESS,
        metavar="SCORER[=WEIGHT][:SCALE]",
        help="scorer to train on (jpeg, clip, my_package.my_module:Mine); again for a weighted sum. SCALE: raw, or "
        "standardised, less its running mean and over its running deviation (clip=0.7:standardised) [raw]",
    )
    for option, (field, text) in SHORTHANDS.items():
        parser.add_argument(option, dest=field, metavar="NAME", help=text)
    groups: dict[str, Any] = {"": parser}
    for field, info in ((field, info) for field, info in known.items() if field != "rewards"):
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
    options = [f"--{field}" for field in known if field != "rewards"]  # a list of groups, set by --reward
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
    kind = known[field].annotation
    options = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if type(None) in options and text.lower() in ("null", "none", "~"):
        return None
    if "tuple" in str(kind):
        return [_scalar(part) for part in text.strip("[]() ").split(",") if part.strip()]
    if str in options or get_origin(kind) is Literal:
        return text  # YAML would read the word no as false
    return _scalar(text)


def _scalar(text: str) -> Any:
    try:
        return float(text) if "e" in text.lower() and text[0].isdigit() else yaml.safe_load(text)
    except (ValueError, RecursionError, yaml.YAMLError):
        return text


def _reward(text: str) -> Tree:
    scorer, _, weight = text.partition("=")
    weight, _, scale = weight.partition(":")
    if scorer.endswith(SCALES):  # not any colon: my_module:Mine has one too
        scorer, _, scale = scorer.rpartition(":")
    try:
        return {"scorer": scorer, "weight": float(weight or 1.0)} | ({"scale": scale} if scale else {})
    except ValueError:
        raise ConfigError("--reward", text, "set SCORER or SCORER=WEIGHT with a number, then :SCALE if any") from None


def _settings_of(resume: Any) -> Tree:
    from rayalign.pipeline.resume import source_settings  # now: it reads arrays, and --help must not wait for that

    return source_settings(str(resume))
