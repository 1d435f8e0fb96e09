"""An exponential moving average of the policy, kept beside it: what steps of the optimiser jump about is smoothed away.

diffusers' own `EMAModel`, with its decay of min(ema_decay, (1 + n) / (10 + n)) after n steps, so that the first steps
do not hold it at the initial weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rayalign.models.weight_sets import WeightArrays, WeightSets


class PolicyAverage:
    """Follows the policy of `weights`, step by step."""

    def __init__(self, weights: WeightSets, decay: float) -> None:
        self._weights, self._decay = weights, decay
        self._names = list(weights.state("policy"))
        self.begin()

    def begin(self) -> None:
        """Anew, at the policy as it is."""
        from diffusers.training_utils import EMAModel

        self._average: Any = EMAModel(self._weights.parameters("policy"), decay=self._decay)

    def step(self) -> None:
        """The optimiser has made a step."""
        self._average.step(self._weights.parameters("policy"))

    def state(self) -> WeightArrays:
        """The average, float32, under the policy's own names; and how many steps it has seen, as `steps` (1,)."""
        shadows = [value.float().cpu().numpy().copy() for value in self._average.shadow_params]
        steps = np.array([self._average.optimization_step], dtype=np.float32)
        return dict(zip(self._names, shadows, strict=True)) | {"steps": steps}

    def restore(self, arrays: WeightArrays) -> None:
        """What `state` gave."""
        self._average.optimization_step = int(arrays["steps"][0])
        for name, value in zip(self._names, self._average.shadow_params, strict=True):
            value.copy_(torch.from_numpy(np.array(arrays[name])))


def without_steps(arrays: WeightArrays) -> WeightArrays:
    """The averaged weights alone."""
    return {name: value for name, value in arrays.items() if name != "steps"}
