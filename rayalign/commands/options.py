"""What commands that build scorers read alike."""

from __future__ import annotations

from typing import Any


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
