"""A plan in words, with its arithmetic, for a terminal."""

from __future__ import annotations

import math

from rayalign.planning.plan import EFFICIENCY, Plan
from rayalign.planning.processes import Process
from rayalign.progress import clock

GB = 1e9


def plan_text(plan: Plan) -> str:
    """Everything `--dry-run` prints. Nothing of it was started."""
    parts = [_what(plan), _placement(plan), _memory(plan), _time(plan), _verdict(plan)]
    return "\n\n".join(part for part in parts if part)


def _what(plan: Plan) -> str:
    config, work, costs = plan.config, plan.work, plan.costs
    tuned = f"{costs.tuned_parameters / 1e6:.1f} million of them tuned ({config.model.tuning.kind})"
    lines = [
        f"{config.model.path}: {costs.denoiser_parameters / 1e6:,.0f} million weights in the denoiser, {tuned}",
        f"an iteration: {work.trajectories} trajectories x {work.calls_per_trajectory} denoiser calls, "
        f"{work.pairs} pairs in micro-batches of {config.train.micro_batch}, "
        f"{config.train.optimizer_steps} optimiser steps; {config.iterations} iterations",
    ]
    return "\n".join(lines)


def _placement(plan: Plan) -> str:
    place = plan.config.placement
    annotate = {} if plan.config.objective.embeds_with is None else {"annotate": place.annotate}
    pools = annotate | {f"scorer {reward.scorer}": reward.pool(place.scorer) for reward in plan.config.all_rewards}
    rows = [
        ("train", str(place.train.num), place.train.cpus, place.train.gpus),
        ("rollout", f"{place.rollout.min} to {place.rollout.max}", place.rollout.cpus, place.rollout.gpus),
        *((name, f"{pool.min} to {pool.max}", pool.cpus, pool.gpus) for name, pool in pools.items()),
    ]
    lines = ["what starts:"]
    lines += [f"  {name:<20} {count:>8}   {cpus:g} CPUs, {gpus:g} GPUs each" for name, count, cpus, gpus in rows]
    return "\n".join(lines)


def _memory(plan: Plan) -> str:
    members: dict[str, Process] = {one.name: one for gpu in plan.gpus for one in gpu.holds}
    lines = []
    for one in members.values():
        lines.append(f"GPU memory of {one.name}: {one.memory / GB:.1f} GB")
        lines += [f"  {value / GB:7.2f}  {term}" for term, value in one.terms]
    for number, gpu in enumerate(plan.gpus, 1):
        names = " + ".join(one.name for one in gpu.holds)
        lines.append(f"GPU {number}: {names} = {gpu.memory / GB:.1f} GB")
    if plan.comparison is not None:
        names = " + ".join(one.name for one in plan.comparison.holds)
        pictures = f"{plan.config.evaluation.batch} pictures together"
        lines.append(f"before and after training, {pictures}: {names} = {plan.comparison.memory / GB:.1f} GB")
    return "\n".join(lines)


def _time(plan: Plan) -> str:
    if math.isnan(plan.iteration_s):
        return ""
    costs, work, card = plan.costs, plan.work, plan.hardware.card
    assert card is not None
    speed = f"{card.tflops:g} x 10^12 operations/s x {EFFICIENCY:.0%} (assumed)"
    side = "side by side (max_lag 1)" if plan.config.rollout.max_lag else "one after the other (max_lag 0)"
    return "\n".join(
        [
            f"time at {speed}, without scoring and starting:",
            f"  drawing   {work.draw_calls} calls x {costs.draw.flops / 1e12:.1f} + {work.decode_calls} decodes x "
            f"{costs.decode.flops / 1e12:.1f} x 10^12 = {clock(plan.rollout_s)}",
            f"  training  {work.train_calls} micro-batches x {costs.train.flops / 1e12:.1f} x 10^12 "
            f"= {clock(plan.training_s)}",
            f"  {clock(plan.iteration_s)} an iteration, {side}; {clock(plan.iteration_s * plan.config.iterations)} "
            f"in all, {plan.gpu_hours:.1f} GPU-hours",
        ]
    )


def _verdict(plan: Plan) -> str:
    if not plan.problems:
        if not plan.gpus:
            return "runs on CPUs; no time is estimated for them"
        return f"fits {plan.hardware}"
    machine = plan.hardware if plan.hardware.count else "a machine without a GPU"
    return "\n".join([f"does not fit {machine}:", *(f"  {problem}" for problem in plan.problems)])


def advice_text(steps: list[tuple[str, Plan]]) -> str:
    """Changes made one after the other, each with the memory of the fullest GPU after it."""
    lines = ["change first:"]
    for number, (text, after) in enumerate(steps, 1):
        fits = "fits" if not after.problems else "not yet"
        largest = f"{after.gpus[0].memory / GB:.1f} GB" if after.gpus else "no GPU"
        lines.append(f"  {number}. {text}: {largest}, {fits}")
    if steps[-1][1].problems:
        lines.append("  that is still too much: set a larger card, or --model.resolution 512")
    return "\n".join(lines)
