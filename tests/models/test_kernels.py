from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler

from rayalign.algorithms.ddim import DDIMKernel
from rayalign.algorithms.rectified_flow import RectifiedFlowKernel
from rayalign.config import FinalPairs, SamplePairs, SamplerConfig, StepwisePairs, TrajectoryPairs
from rayalign.errors import ConfigError
from rayalign.models.kernels import check_steps, make_kernel, picture_kernel
from tests.toys import model_of


@pytest.mark.parametrize("path", ["toy-sd15", "toy-sdxl"])
def test_the_kernel_is_ddim_on_the_models_own_schedule(path: str) -> None:
    """toy-sdxl ships an Euler scheduler, as the real one does."""
    model = model_of(path)
    ddim = DDIMScheduler.from_config(model.pipe.scheduler.config)
    ddim.set_timesteps(20)
    assert isinstance(model.kernel, DDIMKernel)
    assert model.kernel.timesteps == tuple(ddim.timesteps.tolist())
    assert torch.equal(model.kernel.abar_T, ddim.alphas_cumprod)
    assert (model.kernel.eta, model.kernel.final_abar) == (1.0, ddim.final_alpha_cumprod.item())
    # Pictures are drawn with the same noise: it is what a plain pipeline with eta does.
    assert model.picture_kernel is model.kernel


def test_a_flow_has_the_models_own_sigmas_and_the_runs_noise() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    kernel = make_kernel("flow", scheduler, SamplerConfig(num_steps=10, flow_noise=0.5))
    scheduler.set_timesteps(10)
    assert isinstance(kernel, RectifiedFlowKernel)
    assert kernel.sigmas == tuple(scheduler.sigmas.tolist())
    assert (kernel.num_steps, kernel.noise_scale, kernel.num_train_timesteps) == (10, 0.5, 1000)
    # A plain pipeline draws by the ODE.
    assert picture_kernel(kernel) == replace(kernel, noise_scale=0.0)


def test_a_step_without_noise_cannot_be_tuned() -> None:
    kernel = make_kernel("ddim", DDIMScheduler(set_alpha_to_one=True), SamplerConfig())
    check_steps(kernel, StepwisePairs(tuned_steps=(20, 2)))
    with pytest.raises(ConfigError, match="step 1 of this model's schedule adds no noise") as caught:
        check_steps(kernel, StepwisePairs(tuned_steps=(20, 1)))
    assert caught.value.field == "pairs.tuned_steps"


@pytest.mark.parametrize("pairs", [TrajectoryPairs(), SamplePairs()], ids=lambda pairs: pairs.kind)
def test_the_last_step_of_a_flow_is_left_out_unless_it_is_asked_for(pairs: TrajectoryPairs | SamplePairs) -> None:
    kernel = make_kernel("flow", FlowMatchEulerDiscreteScheduler(shift=3.0), SamplerConfig(num_steps=4))
    assert pairs.steps_on(4) == (4, 3, 2)
    check_steps(kernel, pairs)
    with pytest.raises(ConfigError, match="step 1 of this model's schedule adds no noise") as caught:
        check_steps(kernel, pairs.model_copy(update={"steps": (4, 1)}))
    assert caught.value.field == "pairs.steps"


def test_finished_pictures_need_no_step_with_noise() -> None:
    kernel = make_kernel("flow", FlowMatchEulerDiscreteScheduler(), SamplerConfig(num_steps=1))
    check_steps(kernel, FinalPairs())  # a single step, which adds none


def test_a_network_that_predicts_something_else_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'sample': its scheduler's prediction_type is not one of \('epsilon', 'v_p"):
        make_kernel("ddim", DDIMScheduler(prediction_type="sample"), SamplerConfig())
