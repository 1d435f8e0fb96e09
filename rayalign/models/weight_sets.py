"""Three named weight sets on one base: policy, reference, initial.

policy and reference are LoRA adapters; initial is the base with its adapters off. A call names the set it wants;
outside such a call the policy is active, so that a backward pass (which recomputes under gradient checkpointing)
always meets the weights it came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from rayalign.config import LoraConfig
from rayalign.errors import ConfigError, WeightsError

WeightSet = Literal["policy", "reference", "initial"]
LoraArrays = dict[str, np.ndarray]  # "<module path>.lora_A" -> float32 (rank, in), ".lora_B" -> (out, rank)


class WeightSets:
    """The adapters of one denoiser. LoRA weights are float32 whatever the base is."""

    def __init__(self, denoiser: nn.Module, lora: LoraConfig, adapters: tuple[str, ...], seed: int) -> None:
        """Adds `adapters` ("policy", and "reference" where training needs it), all equal, A drawn from `seed`, B = 0.

        Raises ConfigError if a target names no module of the denoiser.
        """
        from peft import LoraConfig as PeftLoraConfig
        from peft.tuners.lora import LoraLayer

        paths = [path for path, _ in denoiser.named_modules()]
        for target in lora.targets:
            if not any(f".{path}".endswith(f".{target}") for path in paths):
                raise ConfigError("model.lora.targets", target, "the denoiser has no such module; name one it has")
        for name in adapters:
            settings = PeftLoraConfig(r=lora.rank, lora_alpha=lora.rank, target_modules=list(lora.targets))
            denoiser.add_adapter(settings, adapter_name=name)  # type: ignore[operator]
        self.adapters = adapters
        self.layers: dict[str, LoraLayer] = {
            path: layer for path, layer in denoiser.named_modules() if isinstance(layer, LoraLayer)
        }
        self._pristine: dict[str, Tensor] = {}
        self._fused = False
        self._initialise(seed)
        self._activate("policy")

    def _initialise(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        for layer in self.layers.values():
            a = layer.lora_A["policy"].weight
            drawn = torch.randn(a.shape, generator=generator) / a.shape[1] ** 0.5
            for name in self.adapters:
                layer.lora_A[name].weight.data = drawn.clone().to(a.device)
                layer.lora_B[name].weight.data = torch.zeros_like(layer.lora_B[name].weight, dtype=torch.float32)

    def _activate(self, name: WeightSet) -> None:
        for layer in self.layers.values():
            layer.enable_adapters(name != "initial")
            if name != "initial":
                layer.set_adapter([name], inference_mode=name != "policy")

    @contextmanager
    def using(self, name: WeightSet) -> Iterator[None]:
        """The denoiser answers with weight set `name` inside; with the policy after."""
        if name == "policy":
            yield
            return
        if name not in ("initial", *self.adapters):
            raise WeightsError(f"no weight set {name!r} here; this process holds {('initial', *self.adapters)}")
        if self._fused:
            raise WeightsError(f"the policy is fused into the base; unfuse() before asking for {name!r}")
        self._activate(name)
        try:
            yield
        finally:
            self._activate("policy")

    def parameters(self, name: WeightSet = "policy") -> list[nn.Parameter]:
        """The LoRA parameters of an adapter, in a fixed order: A, B by module path."""
        return [half[name].weight for layer in self.layers.values() for half in (layer.lora_A, layer.lora_B)]

    def state(self, name: WeightSet = "policy") -> LoraArrays:
        """A copy of an adapter, float32, by module path."""
        arrays: LoraArrays = {}
        for path, layer in self.layers.items():
            arrays[f"{path}.lora_A"] = layer.lora_A[name].weight.detach().float().cpu().numpy().copy()
            arrays[f"{path}.lora_B"] = layer.lora_B[name].weight.detach().float().cpu().numpy().copy()
        return arrays

    @torch.no_grad()
    def load(self, name: WeightSet, arrays: LoraArrays) -> None:
        """Overwrites an adapter. Raises WeightsError, changing nothing, unless names and shapes match one to one."""
        expected = {key: value.shape for key, value in self.state(name).items()}
        missing, unknown = sorted(expected.keys() - arrays.keys()), sorted(arrays.keys() - expected.keys())
        if missing or unknown:
            raise WeightsError(
                f"LoRA weights do not fit this denoiser: {len(unknown)} bind to no module (first: {unknown[:2]}), "
                f"{len(missing)} modules get none (first: {missing[:2]}); base model, targets and rank must be equal"
            )
        for key, shape in expected.items():
            if arrays[key].shape != shape:
                raise WeightsError(f"{key} is {arrays[key].shape}, this model wants {shape}")
        for path, layer in self.layers.items():
            for half, target in (("lora_A", layer.lora_A), ("lora_B", layer.lora_B)):
                target[name].weight.copy_(torch.from_numpy(np.array(arrays[f"{path}.{half}"])))

    def copy(self, source: WeightSet, target: WeightSet) -> None:
        """Hard copy, e.g. policy -> reference."""
        self.load(target, self.state(source))

    @contextmanager
    def amplified(self, factor: float) -> Iterator[None]:
        """The policy with its LoRA scaled by `factor`, for a canary."""
        layers = list(self.layers.values())
        before = [layer.scaling["policy"] for layer in layers]
        for layer, scale in zip(layers, before, strict=True):
            layer.scaling["policy"] = scale * factor
        try:
            yield
        finally:
            for layer, scale in zip(layers, before, strict=True):
                layer.scaling["policy"] = scale

    @torch.no_grad()
    def fuse(self) -> None:
        """W = W0 + B A in every tuned module, always from the pristine W0, so that versions leave no residue.

        Only right for float32 bases: in bfloat16 most of a small update would round away.
        """
        for path, layer in self.layers.items():
            weight = layer.get_base_layer().weight
            if path not in self._pristine:
                self._pristine[path] = weight.detach().clone()
            weight.copy_(self._pristine[path] + layer.get_delta_weight("policy"))
            layer.enable_adapters(False)
        self._fused = True

    @torch.no_grad()
    def unfuse(self) -> None:
        """Back to the pristine base with the policy adapter active."""
        for path, weight in self._pristine.items():
            self.layers[path].get_base_layer().weight.copy_(weight)
        self._fused = False
        self._activate("policy")
