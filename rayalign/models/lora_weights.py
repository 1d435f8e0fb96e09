"""Weight sets of a LoRA: policy and reference are adapters on one frozen base, initial is the base alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from rayalign.config import LoraConfig
from rayalign.errors import ConfigError, WeightsError
from rayalign.models.weight_sets import WeightArrays, WeightSet, WeightSets, check_fit


class LoraWeightSets(WeightSets):
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
                raise ConfigError("model.tuning.targets", target, "the denoiser has no such module; name one it has")
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

    @property
    def names(self) -> tuple[str, ...]:
        return ("initial", *self.adapters)

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
        if name == "policy":
            yield
            return
        self.check_held(name)
        if self._fused:
            raise WeightsError(f"the policy is fused into the base; unfuse() before asking for {name!r}")
        self._activate(name)
        try:
            yield
        finally:
            self._activate("policy")

    def as_drawn(self, name: WeightSet) -> AbstractContextManager[None]:
        return self.using(name)

    def parameters(self, name: WeightSet = "policy") -> list[nn.Parameter]:
        """The LoRA parameters of an adapter, in a fixed order: A, B by module path."""
        return [half[name].weight for layer in self.layers.values() for half in (layer.lora_A, layer.lora_B)]

    def state(self, name: WeightSet = "policy") -> WeightArrays:
        """A copy of an adapter: "<module path>.lora_A" -> float32 (rank, in), "<module path>.lora_B" -> (out, rank).

        Of "initial", the LoRA that adds nothing: the policy's A, and B = 0.
        """
        adapter = "policy" if name == "initial" else name
        arrays: WeightArrays = {}
        for path, layer in self.layers.items():
            arrays[f"{path}.lora_A"] = layer.lora_A[adapter].weight.detach().float().cpu().numpy().copy()
            b = layer.lora_B[adapter].weight.detach().float().cpu().numpy()
            arrays[f"{path}.lora_B"] = np.zeros_like(b) if name == "initial" else b.copy()
        return arrays

    @torch.no_grad()
    def load(self, name: WeightSet, arrays: WeightArrays) -> None:
        self.check_written(name)
        expected = {key: value.shape for key, value in self.state(name).items()}
        check_fit(expected, arrays, "LoRA weights", "base model, targets and rank")
        for path, layer in self.layers.items():
            for half, target in (("lora_A", layer.lora_A), ("lora_B", layer.lora_B)):
                target[name].weight.copy_(torch.from_numpy(np.array(arrays[f"{path}.{half}"])))

    def copy(self, source: WeightSet, target: WeightSet) -> None:
        self.load(target, self.state(source))

    def canary_factor(self, strength: float) -> float:
        weights = [layer.get_base_layer().weight for layer in self.layers.values()]
        base_norm = float(sum(weight.detach().double().pow(2).sum() for weight in weights)) ** 0.5
        return amplification(self.state("policy"), base_norm, strength)

    @contextmanager
    def amplified(self, factor: float) -> Iterator[None]:
        """The policy with its LoRA scaled by `factor`."""
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


def amplification(arrays: WeightArrays, base_norm: float, strength: float) -> float:
    """Factor that makes the norm of all B A the share `strength` of the norm of the weights they are added to."""
    squares = 0.0
    for name in arrays:
        if name.endswith(".lora_A"):
            a, b = (arrays[f"{name[:-1]}{half}"].astype(np.float64) for half in "AB")
            a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)  # a convolution has (rank, in, k, k), (out, rank, 1, 1)
            squares += float(((b.T @ b) * (a @ a.T)).sum())  # ||B A||^2 without forming B A
    # A fresh LoRA has B = 0 and does nothing at any factor.
    return 1.0 if squares == 0 else strength * base_norm / squares**0.5
