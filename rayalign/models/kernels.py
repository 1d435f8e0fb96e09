"""A pipeline's own noise schedule -> the transition kernel of its family."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import torch

from rayalign.algorithms.ddim import DDIMKernel, PredictionType
from rayalign.algorithms.kernel import Kernel
from rayalign.algorithms.rectified_flow import RectifiedFlowKernel
from rayalign.config import Pairs, SamplerConfig
from rayalign.errors import ConfigError


def make_kernel(process: str, scheduler: Any, sampler: SamplerConfig) -> Kernel:
    """The kernel of a family's `process`, whatever scheduler its pipeline ships with.

    Raises ConfigError if the network predicts what the kernel does not know.
    """
    return _flow(scheduler, sampler) if process == "flow" else _ddim(scheduler, sampler)


def _ddim(scheduler: Any, sampler: SamplerConfig) -> DDIMKernel:
    from diffusers import DDIMScheduler

    ddim = DDIMScheduler.from_config(scheduler.config)
    if ddim.config.prediction_type not in get_args(PredictionType):
        fix = f"its scheduler's prediction_type is not one of {get_args(PredictionType)}; set another model"
        raise ConfigError("model.path", ddim.config.prediction_type, fix)
    ddim.set_timesteps(sampler.num_steps)
    return DDIMKernel(
        abar_T=ddim.alphas_cumprod.float(),
        timesteps=tuple(int(t) for t in ddim.timesteps),
        final_abar=float(ddim.final_alpha_cumprod),
        eta=sampler.eta,
        prediction_type=ddim.config.prediction_type,
    )


def _flow(scheduler: Any, sampler: SamplerConfig) -> RectifiedFlowKernel:
    from diffusers import FlowMatchEulerDiscreteScheduler

    flow = FlowMatchEulerDiscreteScheduler.from_config(scheduler.config)
    flow.set_timesteps(sampler.num_steps)
    sigmas = tuple(float(sigma) for sigma in flow.sigmas)
    return RectifiedFlowKernel(sigmas, sampler.flow_noise, flow.config.num_train_timesteps)


def picture_kernel(kernel: Kernel) -> Kernel:
    """The kernel that a plain diffusers pipeline draws finished pictures with: the flow's without its noise."""
    return replace(kernel, noise_scale=0.0) if isinstance(kernel, RectifiedFlowKernel) else kernel


def check_steps(kernel: Kernel, pairs: Pairs) -> None:
    """Raises ConfigError if a step that is trained on has no noise, hence no log-probability."""
    if pairs.rows == "clean":
        return
    one = torch.zeros(1, 1, 1, 1)
    for step in pairs.steps_on(kernel.num_steps):
        t, t_prev = (torch.tensor([value]) for value in (kernel.timestep(step), kernel.timestep_prev(step)))
        if kernel.transition(one, one, t, t_prev).std.item() <= 0:
            name = "tuned_steps" if pairs.kind == "stepwise" else "steps"
            fix = f"step {step} of this model's schedule adds no noise, so it cannot be tuned; leave it out"
            raise ConfigError(f"pairs.{name}", pairs.steps_on(kernel.num_steps), fix)
