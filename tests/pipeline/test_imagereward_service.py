"""ImageReward through Ray Serve: a replica in the scorer's own environment, asked from this one."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from rayalign.config import PoolConfig, RewardConfig, ServiceConfig
from rayalign.pipeline.scoring.service import RewardClient, start_reward_services, stop_reward_services
from rayalign.records import Scores
from rayalign.rewards.environments import python_of
from tests.rewards import imagereward_model

SERVICE = ServiceConfig(timeout_s=240.0, retries=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("imagereward")
    subprocess.run([str(python_of("imagereward")), imagereward_model.__file__, str(folder)], check=True)
    yield folder
    shutil.rmtree(folder)  # a gigabyte


@pytest.fixture
def client(ray_cluster: None, model: Path) -> Iterator[RewardClient]:
    options = {"model": str(model), "tokenizer": str(model / "bert-base-uncased"), "device": "cpu"}
    reward = RewardConfig(scorer="imagereward", options=options)
    start_reward_services("imagereward", [reward], PoolConfig(cpus=0.1), SERVICE, cpu_threads=1)
    client = RewardClient("imagereward", [reward], SERVICE)
    yield client
    client.close()
    stop_reward_services("imagereward")


@pytest.mark.slow
@pytest.mark.timeout(900)  # a ViT-L on a busy machine
def test_served_scores_are_the_packages_own(client: RewardClient, model: Path) -> None:
    before = version("transformers"), version("timm")
    with np.load(model / "numbers.npz") as numbers:
        expected = dict(numbers)
    square, other = ((expected[name].transpose(0, 3, 1, 2) / 255).astype(np.float32) for name in ("square", "other"))

    prompts = imagereward_model.PROMPTS

    async def ask() -> tuple[np.ndarray, np.ndarray, tuple[Scores, np.ndarray]]:
        scores = [(await client(images, prompts)).total_B for images in (square, other)]
        return scores[0], scores[1], await client.score_and_grad(square[:1], prompts[:1])

    on_square, on_other, (guided, grad) = asyncio.run(ask())
    assert not client.failures
    np.testing.assert_allclose(on_square, expected["own_square"], atol=1e-4)  # 224 px: no resize
    # Pillow rounds the resized image to uint8: half a level a pixel.
    np.testing.assert_allclose(on_other, expected["own_other"], atol=0.02)
    np.testing.assert_array_equal(guided.total_B, on_square[:1])
    assert grad.shape == (1, 3, 224, 224)
    assert np.isfinite(grad).all()
    assert np.abs(grad).max() > 0
    assert np.std(expected["own_square"]) > 0.1  # the tolerances say something
    # Two versions of the same packages, each in its place, and nothing of the package in this process.
    assert (str(expected["transformers"]), str(expected["timm"])) == ("4.49.0", "0.6.13")
    assert (version("transformers"), version("timm")) == before
    assert int(before[0].partition(".")[0]) >= 5
    assert "ImageReward" not in sys.modules
