"""Three named weight sets of one denoiser: policy, reference, initial.

With a LoRA (`lora_weights.py`) policy and reference are adapters, and initial is the base with its adapters off. In
full fine-tuning (`full_weights.py`) the policy is the denoiser itself, and the other two are copies. A call names the
set it wants; outside such a call the policy is active, so that a backward pass (which recomputes under gradient
checkpointing) always meets the weights it came from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Literal

import numpy as np
from torch import nn

from rayalign.errors import WeightsError

WeightSet = Literal["policy", "reference", "initial"]
WeightArrays = dict[str, np.ndarray]  # float32, by name: see `LoraWeightSets.state` and `FullWeightSets.state`


class WeightSets(ABC):
    """What the rest of the package asks of the weights of one denoiser, however they are tuned."""

    adapters: tuple[str, ...]  # the sets that can be written: "policy", and "reference" where training needs it

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The sets that this process can answer with now."""

    @abstractmethod
    def using(self, name: WeightSet) -> AbstractContextManager[None]:
        """The denoiser answers with weight set `name` inside; with the policy after.

        Raises WeightsError if this process does not hold it.
        """

    @abstractmethod
    def as_drawn(self, name: WeightSet) -> AbstractContextManager[None]:
        """`using`, in the very form in which a process that only draws holds the set: for a canary."""

    @abstractmethod
    def parameters(self, name: WeightSet = "policy") -> list[nn.Parameter]:
        """The tuned parameters of a set, in a fixed order."""

    @abstractmethod
    def state(self, name: WeightSet = "policy") -> WeightArrays:
        """A copy of a set, float32, by name."""

    @abstractmethod
    def load(self, name: WeightSet, arrays: WeightArrays) -> None:
        """Overwrites a set. Raises WeightsError, changing nothing, unless names and shapes match one to one.

        So it does if the set is not one of `adapters`: initial weights never change.
        """

    @abstractmethod
    def copy(self, source: WeightSet, target: WeightSet) -> None:
        """Hard copy, e.g. policy -> reference."""

    @abstractmethod
    def canary_factor(self, strength: float) -> float:
        """What `amplified` takes to change the weights by about the share `strength` of their norm."""

    @abstractmethod
    def amplified(self, factor: float) -> AbstractContextManager[None]:
        """The policy so changed inside that even its smallest update shows: for a canary."""

    @abstractmethod
    def fuse(self) -> None:
        """Makes the policy as fast to call as the bare denoiser, until `unfuse`."""

    @abstractmethod
    def unfuse(self) -> None:
        """Back to where all sets can be asked for and the policy can train."""

    def check_held(self, name: str) -> None:
        """Raises WeightsError if this process cannot answer with `name`."""
        if name not in self.names:
            raise WeightsError(f"no weight set {name!r} here; this process holds {self.names}")

    def check_written(self, name: str) -> None:
        """Raises WeightsError if this process cannot overwrite `name`."""
        if name not in self.adapters:
            raise WeightsError(f"weight set {name!r} cannot be written here, only {self.adapters}")


def check_fit(shapes: Mapping[str, tuple[int, ...]], arrays: WeightArrays, kind: str, must_be_equal: str) -> None:
    """Raises WeightsError unless `arrays` has exactly the names and `shapes` of the set that it shall become."""
    missing, unknown = sorted(shapes.keys() - arrays.keys()), sorted(arrays.keys() - shapes.keys())
    if missing or unknown:
        raise WeightsError(
            f"{kind} do not fit this denoiser: {len(unknown)} bind to no module (first: {unknown[:2]}), "
            f"{len(missing)} modules get none (first: {missing[:2]}); {must_be_equal} must be equal"
        )
    for key, shape in shapes.items():
        if arrays[key].shape != shape:
            raise WeightsError(f"{key} is {arrays[key].shape}, this model wants {shape}")
