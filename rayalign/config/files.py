"""A YAML file of settings, read as strictly as a command line: what could be misread is an error."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from rayalign.errors import ConfigError

MAX_BYTES = 1_000_000
MAX_VALUES = 100_000  # aliases within aliases make a small file billions of values, which no message could show
MAX_DEPTH = 50


class StrictLoader(yaml.SafeLoader):
    """YAML lets a later key win over an earlier one of the same name; here that is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_settings(name: str | Path, field: str = "--config") -> dict[str, Any]:
    """The tree of settings in a file.

    Raises ConfigError naming `field`: no such file, no UTF-8 or no YAML, a name twice, values within values without
    end, or something other than settings by name.
    """
    try:
        path = Path(name).expanduser()
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(field, str(name), f"is larger than {MAX_BYTES} bytes; set a file of settings")
        tree = yaml.load(path.read_text(encoding="utf-8"), StrictLoader)
    except RecursionError:
        raise ConfigError(field, str(name), "nests too deep; write it as in a run's config.yaml") from None
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: not UTF-8, a date or number that is none
        said = str(error).replace('in "<unicode string>", ', "at ")
        raise ConfigError(field, str(name), f"cannot be read: {said}") from error
    if not isinstance(tree, dict):
        raise ConfigError(field, str(name), "holds no settings; write them as in a run's config.yaml")
    if problem := _problem(tree):
        raise ConfigError(field, str(name), f"{problem}; write it as in a run's config.yaml")
    return tree


def _problem(tree: Any) -> str:
    """What makes a tree unfit to be merged, compared and shown; empty if nothing does."""
    left, budget = [(tree, 0)], MAX_VALUES
    while left:
        value, depth = left.pop()
        budget -= 1
        if budget < 0 or depth > MAX_DEPTH:
            return f"holds more than {MAX_VALUES} values, or values nested deeper than {MAX_DEPTH}"
        if isinstance(value, dict):
            for key in value:
                if not isinstance(key, str):
                    return f"names a setting {key!r}, which is no name"
            left += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, list | tuple | set):
            left += [(item, depth + 1) for item in value]
    return ""
