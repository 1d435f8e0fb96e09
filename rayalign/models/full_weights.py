"""Weight sets of full fine-tuning: the policy is the denoiser itself, reference and initial are copies.

A copy is no second module but a second set of parameters, which stands in for the policy's while it is asked for. So
all sets go through one and the same forward, with whatever Accelerate put around it: a reference that computes in
another precision than the policy would give pairs an implicit reward before anything was learned. The policy's own
parameters are set aside meanwhile, not written to, so neither a graph that exists already nor DDP's hooks notice.

Precision. Where the policy trains, its parameters and the copies are float32, and autocast computes in the model's
`dtype`: an AdamW step of 1e-5 is a twelfth of the distance between two bfloat16 numbers at 0.02, and would round away.
Where it only draws, it is held in `dtype` itself: half the memory, and the same numbers go into each product.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from rayalign.models.weight_sets import WeightArrays, WeightSet, WeightSets, check_fit

# Knuth's multiplicative hash: the odd number nearest to 2^32 / golden ratio spreads neighbours over the whole range.
HASH_MULTIPLIER = 2_654_435_769


def trains_whole(adapters: tuple[str, ...]) -> bool:
    """Whether a process with these adapters trains: one that never compares with a reference only draws."""
    return "reference" in adapters


def scrambled(weight: Tensor, factor: float) -> Tensor:
    """w (1 + factor u): u in [-1, 1) is a hash of w's bits, so that w's neighbour has quite another u.

    Same shape and dtype (float32, bfloat16 or float16). Each step is exact or rounded once, hence bit-equal on every
    device.
    """
    integers = {4: torch.int32, 2: torch.int16}[weight.element_size()]
    hashed = weight.contiguous().view(integers).long() * HASH_MULTIPLIER & 0xFFFFFFFF
    u = (hashed >> 8).float() / 2**23 - 1  # 24 bits, as many as a float32 holds
    return weight * (1 + factor * u).to(weight.dtype)


class _Place(NamedTuple):
    """Where the denoiser keeps one parameter or floating-point buffer."""

    name: str
    slots: dict[str, Tensor | None]
    leaf: str

    def value(self) -> Tensor:
        return self.slots[self.leaf]  # type: ignore[return-value]

    def put(self, value: Tensor) -> None:
        # Into the module's own table, not by setattr, whose checks take 30 ms over SDXL's 1,680 parameters (here 1).
        self.slots[self.leaf] = value


def _places(denoiser: nn.Module) -> Iterator[_Place]:
    for path, module in denoiser.named_modules():
        for slots in (module._parameters, module._buffers):
            for leaf, value in slots.items():
                if value is not None and value.is_floating_point():
                    yield _Place(f"{path}.{leaf}".lstrip("."), slots, leaf)


class FullWeightSets(WeightSets):
    """All parameters of one denoiser, by name. Buffers are nobody's: they belong to the model and never change."""

    def __init__(
        self, denoiser: nn.Module, adapters: tuple[str, ...], copies_on: Literal["cpu", "device"], dtype: torch.dtype
    ) -> None:
        """Takes `denoiser`, on its device, as the policy. Copies are made where "reference" is in `adapters`.

        A process with the policy alone answers with "initial" until it first loads another policy. On the CPU a copy
        goes to the device whole for each call and is dropped after; no activation of a training call stands beside it.
        """
        self.denoiser, self.adapters = denoiser, adapters
        self._trains = trains_whole(adapters)
        self._dtype = dtype
        if self._trains:
            denoiser.float().requires_grad_()
        self._policy: dict[str, nn.Parameter] = dict(denoiser.named_parameters())
        self._device = next(iter(self._policy.values())).device
        self._copies_on = torch.device("cpu") if copies_on == "cpu" else self._device
        self._places = list(_places(denoiser))
        self._copies: dict[str, dict[str, nn.Parameter]] = {}
        if self._trains:
            initial = {name: self._frozen(value) for name, value in self._policy.items()}
            # One memory until the reference is written to, which under a fixed reference it never is.
            self._copies = {"initial": initial, "reference": dict(initial)}
        self._is_initial = True  # nothing was loaded into the policy yet

    @property
    def names(self) -> tuple[str, ...]:
        holds_initial = self._trains or self._is_initial
        return ("initial", *self.adapters) if holds_initial else self.adapters

    def _frozen(self, value: Tensor) -> nn.Parameter:
        copied = value.detach().to(self._copies_on, torch.float32, copy=True)
        return nn.Parameter(copied, requires_grad=False)

    @contextmanager
    def using(self, name: WeightSet) -> Iterator[None]:
        self.check_held(name)
        with self._autocast():
            if name in self._copies:
                with self._standing_in(self._copies[name]):
                    yield
            else:
                yield

    def _autocast(self) -> AbstractContextManager[object]:
        if not self._trains or self._dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self._device.type, self._dtype)

    @contextmanager
    def as_drawn(self, name: WeightSet) -> Iterator[None]:
        """In `dtype` throughout, without autocast, which would leave norms and buffers in float32."""
        self.check_held(name)
        if not self._trains:
            yield
            return
        present = {place.name: place.value() for place in self._places} | self._copies.get(name, {})
        with self._standing_in({key: value.to(self._dtype) for key, value in present.items()}):
            yield

    @contextmanager
    def _standing_in(self, values: Mapping[str, Tensor]) -> Iterator[None]:
        """The denoiser has `values`, on its device, in place of its present ones inside."""
        places = [place for place in self._places if place.name in values]
        before, present = [place.value() for place in places], [values[place.name].to(self._device) for place in places]
        try:
            for place, value in zip(places, present, strict=True):
                place.put(value)
            yield
        finally:
            for place, value in zip(places, before, strict=True):
                place.put(value)

    def _held(self, name: WeightSet) -> Mapping[str, nn.Parameter]:
        self.check_held(name)
        return self._copies.get(name, self._policy)

    def parameters(self, name: WeightSet = "policy") -> list[nn.Parameter]:
        """All parameters, in the denoiser's own order."""
        return list(self._held(name).values())

    def state(self, name: WeightSet = "policy") -> WeightArrays:
        """A copy of a set: "<module path>.<parameter>" -> float32, as the denoiser's own state_dict names them."""
        return {
            key: value.detach().to("cpu", torch.float32, copy=True).contiguous().numpy()
            for key, value in self._held(name).items()
        }

    def load(self, name: WeightSet, arrays: WeightArrays) -> None:
        self.check_written(name)
        shapes = {key: tuple(value.shape) for key, value in self._policy.items()}
        check_fit(shapes, arrays, "whole weights", "the base model's architecture")
        # Copied one by one, since torch takes no array that cannot be written to, as those of an object store.
        self._write(name, ((key, torch.from_numpy(np.array(arrays[key]))) for key in shapes))

    def copy(self, source: WeightSet, target: WeightSet) -> None:
        self.check_written(target)
        self._write(target, self._held(source).items())

    @torch.no_grad()
    def _write(self, name: WeightSet, values: Iterable[tuple[str, Tensor]]) -> None:
        if name == "policy":
            self._is_initial = False
            for key, value in values:
                self._policy[key].copy_(value)
            return
        held, initial = self._copies[name], self._copies["initial"]
        for key, value in values:
            if torch.equal(initial[key], value.to(initial[key])):
                held[key] = initial[key]  # a resumed run's fixed reference takes no memory either
            elif held[key] is initial[key]:
                held[key] = self._frozen(value)
            else:
                held[key].copy_(value)

    def canary_factor(self, strength: float) -> float:
        return strength

    @contextmanager
    def amplified(self, factor: float) -> Iterator[None]:
        """Each weight of the policy, as a drawing process holds it, moved by up to `factor` of itself, by its own bits.

        The difference of two versions cannot be scaled up as a LoRA can: a process that draws keeps no initial weights.
        Moved so, weights that differ in their last bits, or stand elsewhere, answer quite differently.
        """
        # Of what stands in the denoiser, not of what `load` wrote to: weights may have been bound to nothing.
        with torch.no_grad():
            moved = {
                place.name: scrambled(place.value().to(self._dtype), factor)
                for place in self._places
                if place.name in self._policy
            }
        with self._standing_in(moved):
            yield

    def fuse(self) -> None:
        """The policy is the bare denoiser already."""

    def unfuse(self) -> None:
        """Nothing was fused."""
