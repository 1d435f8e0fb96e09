"""Methods whose parts meet across actors: guidance through the reward service, contrast through the annotate pool."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import torch

from rayalign.config import RunConfig
from rayalign.errors import ConfigError
from rayalign.models.load import load_model
from rayalign.pipeline.scoring.service import RewardClient
from rayalign.pipeline.validate import check_inputs
from rayalign.records import CLEAN, EMBEDDINGS
from rayalign.rewards.table import build_scorer
from rayalign.sampling.drawn import Clock
from rayalign.sampling.guidance import reward_gradient
from tests.pipeline.tools import Hand, scoring

PROMPTS = ["a large red circle on a white ground", "a small blue square on a black ground"]


def guided(reward: str = "toy-clip") -> RunConfig:
    return RunConfig.model_validate(
        {
            "model": {"path": "toy-sdxl"},
            "prompts": {"source": "shapes"},
            "rewards": [{"scorer": reward}],
            "sampler": {"num_steps": 6, "guidance_scale": 1.0},
            "pairs": {"tuned_steps": [6, 3], "guidance": {"enabled": True}},
            "objective": {"kind": "rpo", "embedder": "toy-clip"},
            "rollout": {"samples_per_ticket": 2, "tickets_per_iteration": 2},
            "placement": {"rollout": {"cpus": 0.5}, "scorer": {"cpus": 0.1}, "annotate": {"cpus": 0.5}},
            "iterations": 1,
        }
    )


@pytest.fixture(scope="module")
def services(ray_cluster: None) -> Iterator[None]:
    with scoring(guided()):
        yield


def test_the_gradient_that_crosses_the_actors_equals_autograd_in_one_process(services: None) -> None:
    """reward -> VAE decoder -> predicted clean latent -> denoiser, whole in one graph, against d score / d image."""
    config = guided()
    model, scorer = load_model(config, "cpu"), build_scorer(config.rewards[0])
    x = torch.randn((2, *model.latent_shape), generator=torch.Generator().manual_seed(3))
    text = model.encode(PROMPTS)
    client = RewardClient(config.key, config.rewards, config.service)
    crossed = asyncio.run(reward_gradient(model, client, x, 3, text, PROMPTS, Clock()))
    client.close()

    whole = x.clone().requires_grad_(True)
    t = torch.full((2,), model.kernel.timestep(2))
    clean = model.kernel.clean_latent(model.denoise(whole, t, text), whole, t)[0]
    score_B = scorer.score_tensors(model.decode_with_grad(clean), PROMPTS)  # type: ignore[attr-defined]
    (expected,) = torch.autograd.grad(score_B.sum(), whole)
    assert expected.abs().max() > 1e-6
    assert (crossed - expected).norm() / expected.norm() < 1e-5


def test_pairs_carry_embeddings_and_guided_winners_through_the_stream(services: None) -> None:
    config = guided()
    tables = Hand(config).run()
    whole = pa.concat_tables(tables)
    assert not set(CLEAN) & set(whole.column_names)
    for name in EMBEDDINGS:
        lengths = np.linalg.norm(np.array(whole[name].to_pylist()), axis=1)
        np.testing.assert_allclose(lengths, 1.0, atol=1e-5)
    # 6 steps, one look ahead for the other candidate at each of two, two guided calls at each.
    assert set(whole["denoiser_calls"].to_pylist()) == {6 + 2 + 4}
    assert config.pairs.calls_per_trajectory(6) == 12
    assert any(whole["guided"].to_pylist())


def test_guidance_by_a_scorer_without_a_gradient_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="needs scorers that have a gradient") as caught:
        check_inputs(guided("jpeg"))
    assert caught.value.value == "jpeg"
    assert "toy-clip" in str(caught.value)
