"""What several commands read alike."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rayalign.trees import Tree

Plain = dict[str, tuple[str, type, str]]  # option -> (setting, type, what --help says)


def settings_parser(command: str, description: str, epilog: str, plain: Plain) -> argparse.ArgumentParser:
    """Of a command that takes settings: `--config` and the options of `plain`, each under its own name."""
    parser = argparse.ArgumentParser(
        prog=f"rayalign {command}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML of settings, below those given here")
    for option, (_, kind, text) in plain.items():
        parser.add_argument(option, dest=option, type=kind, metavar="", help=text)
    return parser


def read_plain(given: Mapping[str, Any], plain: Plain) -> list[Tree]:
    """The settings of `--config`'s file, and those of the options that were given, which go above."""
    from rayalign.config.files import read_settings
    from rayalign.trees import put

    asked: Tree = {}
    for option, (setting, _, _) in plain.items():
        if given[option] is not None:
            put(asked, setting, given[option])
    return [read_settings(given["config"]) if given["config"] else {}, asked]


def named_option(text: str, form: str = "NAME=VALUE") -> tuple[str, Any]:
    """ "strength=0.5" -> ("strength", 0.5), the value as in YAML. Raises ConfigError, which shows `form`."""
    import yaml

    from rayalign.errors import ConfigError

    name, equals, value = text.partition("=")
    try:
        if name and equals:
            return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError("--option", text, f"the value is no YAML ({error})") from error
    raise ConfigError("--option", text, f"set {form}")
