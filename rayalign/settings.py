"""The base of every group of settings, and the bounded numbers they use. Light: `--help` imports this."""

from __future__ import annotations

from typing import Annotated, Any

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
    def _usual_kind(cls, values: Any) -> Any:
        """A union's settings without a `kind` are those of its default, so that one of them can be set alone."""
        if not isinstance(values, dict):
            return values
        filled = dict(values)
        for name, field in cls.model_fields.items():
            group, usual = values.get(name), getattr(field.default, "kind", None)
            if isinstance(group, dict) and "kind" not in group and usual is not None:
                filled[name] = {"kind": usual, **group}
        return filled
