"""The objectives, by name. A new one is one file and one line here; its settings appear in `--help` by themselves."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Annotated, Any

from pydantic import Field

from rayalign.objectives.base import Objective
from rayalign.objectives.ddpo import DDPO
from rayalign.objectives.dpo import DPO
from rayalign.objectives.rpo import RPO
from rayalign.objectives.sft import SFT

OBJECTIVES: tuple[type[Objective], ...] = (DPO, RPO, SFT, DDPO)


def union() -> Any:
    """The type of the setting `objective`: one of the table, told apart by `kind`."""
    return Annotated[reduce(or_, OBJECTIVES), Field(discriminator="kind")]
