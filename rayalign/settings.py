"""The base of every group of settings, and the bounded numbers they use. Light: `--help` imports this."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]
AboveZero = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Pixels = Annotated[int, Field(ge=8, multiple_of=8)]


class Settings(BaseModel):
    """Unknown names are refused, nothing changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _as_meant(cls, values: Any) -> Any:
        """A union's settings without a `kind` are those of its default, so that one can be set alone; `yes` is no 1."""
        if not isinstance(values, dict):
            return values
        filled = dict(values)
        for name, field in cls.model_fields.items():
            given, usual = values.get(name), getattr(field.default, "kind", None)
            if isinstance(given, dict) and "kind" not in given and usual is not None:
                filled[name] = {"kind": usual, **given}
            elif isinstance(given, bool | list | tuple) and _holds_numbers(field.annotation):
                filled[name] = _no_number(given)
        return filled


def _holds_numbers(kind: Any) -> bool:
    """Whether a setting is a number or several, and no yes or no."""
    left, inside = [kind], []
    while left:
        inside.append(left.pop())
        left += get_args(inside[-1])
    return bool not in inside and (int in inside or float in inside)


def _no_number(value: Any) -> Any:
    """YAML reads a bare `yes` as true, which pydantic would take for 1; the word is refused by the field itself."""
    if isinstance(value, list | tuple):
        return [_no_number(item) for item in value]
    return str(value).lower() if isinstance(value, bool) else value
