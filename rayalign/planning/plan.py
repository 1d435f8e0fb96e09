"""A run against hardware: does it fit, how long does it take, and what to change first if it does not fit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rayalign.config import RunConfig
from rayalign.planning.costs import Costs
from rayalign.planning.hardware import Hardware
from rayalign.planning.processes import HELD_OUT, Process, comparing, processes
from rayalign.planning.work import Work, iteration_work

# Share of a card's dense bfloat16 speed that these models reach (assumed; a run's own first iterations tell).
EFFICIENCY = 0.35
TOY_PARAMETERS = 50_000_000  # a denoiser below this runs well on CPUs


@dataclass(frozen=True)
class Change:
    """One setting to change, as a tree over the run's own, and in words."""

    text: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Gpu:
    """What is put together on one GPU."""

    holds: tuple[Process, ...]

    @property
    def memory(self) -> float:
        return sum(one.memory for one in self.holds)


@dataclass(frozen=True)
class Plan:
    """All that `--dry-run` says. Times in seconds, memory in bytes; nan where a card's speed is not known."""

    config: RunConfig
    hardware: Hardware
    costs: Costs
    work: Work
    gpus: tuple[Gpu, ...]  # as many as the run takes, fullest first
    comparison: Gpu | None  # the fullest before and after training; null where pictures are drawn on CPUs
    rollout_s: float
    training_s: float
    problems: tuple[str, ...]
    advice: tuple[Change, ...]

    @property
    def iteration_s(self) -> float:
        """Generating and training follow one another, or go on side by side with max_lag 1."""
        if self.config.rollout.max_lag:
            return max(self.rollout_s, self.training_s)
        return self.rollout_s + self.training_s

    @property
    def gpu_hours(self) -> float:
        return self.iteration_s * self.config.iterations * len(self.gpus) / 3600


def make_plan(config: RunConfig, hardware: Hardware, costs: Costs) -> Plan:
    """Puts the run's processes on GPUs as Ray does: shares of at most a whole one, largest first."""
    work, members = iteration_work(config), processes(config, costs)
    gpus = _pack(members)
    comparison = _comparison(gpus, comparing(config, costs))
    rollout_s, training_s = _times(config, hardware, costs, work, members)
    limit = hardware.card.memory_gb * 1e9 if hardware.card else 0.0
    problems: list[str] = []
    advice: list[Change] = []
    if not members and (hardware.count or costs.denoiser_parameters > TOY_PARAMETERS):
        problems.append("placement gives no process a GPU: the model would run on CPUs")
        shares = {"train": {"gpus": 0.4}, "rollout": {"gpus": 0.4}, "scorer": {"gpus": 0.2}}
        text = "--placement.train.gpus 0.4 --placement.rollout.gpus 0.4 --placement.scorer.gpus 0.2"
        advice.append(Change(text, {"placement": shares}))
    if len(gpus) > hardware.count:
        problems.append(f"the run takes {len(gpus)} GPUs and there are {hardware.count}")
        advice.append(Change("lower the gpus of placement's groups until they share what there is", {}))
    full = [gpu for gpu in gpus if gpu.memory > limit]
    if hardware.card and full:
        names = " + ".join(one.name for one in full[0].holds)
        problems.append(f"{names} need {full[0].memory / 1e9:.1f} GB of a GPU that has {limit / 1e9:g}")
        advice += _advice(config, full[0], limit, len(gpus) < hardware.count)
    elif hardware.card and comparison and comparison.memory > limit:
        need = f"{comparison.memory / 1e9:.1f} GB of a GPU that has {limit / 1e9:g}"
        problems.append(f"before and after training, drawing {config.evaluation.batch} pictures together needs {need}")
        advice += _fewer_pictures(config)
    found = (tuple(gpus), comparison, rollout_s, training_s, tuple(problems), tuple(advice))
    return Plan(config, hardware, costs, work, *found)


def _pack(members: list[Process]) -> list[Gpu]:
    """Each copy onto the first GPU with room for its share; one that takes several gets them whole."""
    room: list[tuple[float, list[Process]]] = []
    for one in sorted(members, key=lambda member: -member.share):
        for _ in range(one.count):
            if one.share >= 1:
                room += [(0.0, [one]) for _ in range(math.ceil(one.share))]
                continue
            place = next((i for i, (free, _) in enumerate(room) if free >= one.share - 1e-9), None)
            if place is None:
                room.append((1.0, []))
                place = len(room) - 1
            free, holds = room[place]
            room[place] = (free - one.share, [*holds, one])
    return sorted((Gpu(tuple(holds)) for _, holds in room), key=lambda gpu: -gpu.memory)


def _comparison(gpus: list[Gpu], drawing: Process) -> Gpu | None:
    """The fullest GPU while no train worker is there, nor pairs to annotate."""
    held = []
    for gpu in gpus:
        there = [one for one in gpu.holds if one.name not in ("train", "annotate")]
        if any(one.name == "rollout" for one in there):
            held.append(Gpu(tuple(drawing if one.name == "rollout" else one for one in there)))
    return max(held, key=lambda gpu: gpu.memory, default=None)


def _times(
    config: RunConfig, hardware: Hardware, costs: Costs, work: Work, members: list[Process]
) -> tuple[float, float]:
    if hardware.card is None or not members:
        return math.nan, math.nan
    speed = hardware.card.tflops * 1e12 * EFFICIENCY
    drawing = work.draw_calls * costs.draw.flops + work.decode_calls * costs.decode.flops
    training = work.train_calls * costs.train.flops
    # Actors beyond the number of GPUs share their speed.
    drawers = min(config.placement.rollout.min, hardware.count) or 1
    trainers = min(config.placement.train.num, hardware.count) or 1
    return drawing / speed / drawers, training / speed / trainers


def _advice(config: RunConfig, gpu: Gpu, limit: float, more_gpus: bool) -> list[Change]:
    """What to change, what costs no quality and least time first."""
    names = [one.name for one in gpu.holds]
    train, rollout = config.train, config.rollout
    found = []
    if any(term.startswith(HELD_OUT) for one in gpu.holds for term, _ in one.terms):
        found += _fewer_pictures(config)
    if more_gpus and len(names) > 1 and all(one.memory <= limit for one in gpu.holds):
        own = {group: {"gpus": 1.0} for group in ("train", "rollout", "scorer")}
        found.append(Change("give each a GPU of its own: --placement.train.gpus 1 and so on", {"placement": own}))
    if "train" in names and not train.gradient_checkpointing:
        text = "--train.gradient_checkpointing true (a third more training time)"
        found.append(Change(text, {"train": {"gradient_checkpointing": True}}))
    if "train" in names and config.model.tuning.kind == "full" and config.model.tuning.copies_on == "device":
        text = "--model.tuning.copies_on cpu (reference and initial weights beside the CPU, slower)"
        found.append(Change(text, {"model": {"tuning": {"copies_on": "cpu"}}}))
    if "train" in names:
        for size in _halves(train.micro_batch):
            found.append(Change(f"--train.micro_batch {size} (the same result)", {"train": {"micro_batch": size}}))
    if "rollout" in names:
        for size in _halves(rollout.samples_per_ticket):
            tickets = rollout.tickets_per_iteration * rollout.samples_per_ticket // size
            text = f"--rollout.samples_per_ticket {size} --rollout.tickets_per_iteration {tickets}"
            found.append(Change(text, {"rollout": {"samples_per_ticket": size, "tickets_per_iteration": tickets}}))
    if "train" in names and config.model.tuning.kind == "full":
        if train.optimizer == "adamw":
            text = "--train.optimizer adafactor (not the same result)"
            found.append(Change(text, {"train": {"optimizer": "adafactor"}}))
        found.append(Change("--model.tuning.kind lora", {"model": {"tuning": {"kind": "lora"}}}))
    return found


def _fewer_pictures(config: RunConfig) -> list[Change]:
    sizes = _halves(config.evaluation.batch)
    return [Change(f"--evaluation.batch {size} (the same pictures)", {"evaluation": {"batch": size}}) for size in sizes]


def _halves(size: int) -> list[int]:
    return [size >> shift for shift in range(1, size.bit_length()) if size % (1 << shift) == 0]
