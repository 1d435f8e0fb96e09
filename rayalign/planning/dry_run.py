"""`--dry-run`: the settings of a run -> its plan as text, and what to change until it fits."""

from __future__ import annotations

from typing import Any

from rayalign.config import RunConfig
from rayalign.planning.costs import measure_costs
from rayalign.planning.hardware import Hardware, local_hardware, parse_hardware
from rayalign.planning.plan import Plan, make_plan
from rayalign.planning.text import advice_text, plan_text
from rayalign.trees import merged


def dry_run(config: RunConfig, hardware: str) -> str:
    """The plan for `hardware` ("8xh100"), or for this machine's GPUs where it is empty.

    Raises ConfigError if the hardware is not understood, or the model's configuration cannot be read.
    """
    planned = parse_hardware(hardware) if hardware else local_hardware()
    plan = make_plan(config, planned, measure_costs(config))
    steps = mend(plan, planned)
    return "\n".join([plan_text(plan), *([advice_text(steps)] if steps else [])])


def mend(plan: Plan, hardware: Hardware) -> list[tuple[str, Plan]]:
    """Takes a plan's first advice, plans again, and so on until it fits; (the change, the plan after it) each."""
    steps: list[tuple[str, Plan]] = []
    while plan.problems and plan.advice and plan.advice[0].settings:
        change = plan.advice[0]
        config = type(plan.config).model_validate(merged([plan.config.model_dump(), change.settings]))
        costs = plan.costs
        if change.settings.keys() != {"evaluation"}:  # whose pictures are what a ticket's take, times their number
            costs = measure_costs(config, plan.costs if _draws_alike(change.settings) else None)
        plan = make_plan(config, hardware, costs)
        steps.append((change.text, plan))
    if plan.problems and plan.advice and not steps:
        steps.append((plan.advice[0].text, plan))
    return steps


def _draws_alike(changes: dict[str, Any]) -> bool:
    """Whether sampling takes what it took before."""
    return not changes.keys() & {"rollout", "model", "sampler"}
