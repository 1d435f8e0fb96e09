"""The throughput benchmark: honest (same pairs, same gradient), counting right, and without Ray."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TINY = ["--model", "stub:denoise_s=0.001,train_s=0.001", "--reward", "stub", "--batch", "2", "--repeats", "1"]


def run_script(code: str) -> str:
    """Runs Python in a fresh process, with the benchmarks on its path; returns what it printed."""
    prefix = f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n"
    return subprocess.run([sys.executable, "-c", prefix + code], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def result() -> dict:
    from throughput import measure, parse

    return measure(parse(TINY))


def test_sampling_takes_25_calls_where_the_naive_way_takes_30(result: dict) -> None:
    # 20 steps and 5 tuned: 20 + (2 - 1) x 5, against 20 + 2 x 5.
    assert result["sampling"]["fast"]["calls_per_trajectory"] == 25
    assert result["sampling"]["naive"]["calls_per_trajectory"] == 30


def test_training_asks_once_for_a_pair_where_the_naive_way_asks_twice(result: dict) -> None:
    for name, calls in (("fast", 1), ("naive", 2)):
        assert result["training"][name]["policy_calls_per_pair"] == calls
        assert result["training"][name]["reference_calls_per_pair"] == calls


def test_both_ways_give_the_same_pairs_and_the_same_gradient(result: dict) -> None:
    assert result["agreement"]["same_pairs"] == 1.0
    assert 0 <= result["agreement"]["gradient_difference"] < 1e-4
    assert result["agreement"]["agrees"]


def test_it_reports_rates_ratios_and_memory(result: dict) -> None:
    for stage in ("sampling", "training"):
        assert result[stage]["ratio"] > 0
        for name in ("fast", "naive"):
            assert result[stage][name]["pairs_per_s"] > 0
            assert result[stage][name]["peak_memory_gib"] > 0
    assert result["sampling"]["fast"]["denoiser_calls_per_s"] > 0
    assert result["denoiser_alone"]["calls_per_s"] > 0


def test_the_report_shows_every_number_and_the_json_can_be_written(result: dict, tmp_path: Path) -> None:
    from output import write_json
    from throughput import report

    text = report(result)
    assert "the same result" in text
    assert re.search(
        r"calls a trajectory +25 +30 +-\n", text
    )  # columns are as wide as this process's memory has digits
    write_json(str(tmp_path / "numbers.json"), result)
    assert json.loads((tmp_path / "numbers.json").read_text())["versions"]["torch"] == torch.__version__.split("+")[0]


def test_a_gradient_that_differs_is_noticed() -> None:
    from naive import NaiveDPO
    from throughput import parse
    from workload import Workload

    class Larger(NaiveDPO):
        def losses(self, view: Any) -> Any:
            return super().losses(view)[0] * 1.1, {}

    work = Workload(parse(TINY), lora_b_std=0.01)
    work.start_training()
    work._naive.objective = Larger(**work.config.objective.model_dump())
    # Ours is g, the other's 1.1 g: 0.1 / 1.1 of its norm apart.
    assert work.gradient_difference() == pytest.approx(1 / 11, rel=1e-3)


def test_it_runs_where_neither_ray_nor_open_clip_is_installed() -> None:
    code = f"""
import sys
sys.modules["ray"] = sys.modules["open_clip"] = None  # an import of them raises ImportError
import throughput
measured = throughput.measure(throughput.parse({TINY!r} + ["--reward", "jpeg", "--model", "toy-sdxl", "--steps", "4"]))
print([name for name, module in sys.modules.items() if module and name.split(".")[0] in ("ray", "open_clip")])
"""
    assert run_script(code).strip().splitlines()[-1] == "[]"


def test_help_imports_nothing_heavy() -> None:
    code = "import throughput, overhead; print([n for n in ('torch', 'ray', 'rayalign') if n in sys.modules])"
    assert run_script(code).strip() == "[]"


def test_random_sdxl_has_the_published_size() -> None:
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from random_sdxl import UNET, UNET_PARAMETERS, VAE, VAE_PARAMETERS

    with torch.device("meta"):
        unet, vae = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE)
    assert sum(weights.numel() for weights in unet.parameters()) == UNET_PARAMETERS
    assert sum(weights.numel() for weights in vae.parameters()) == VAE_PARAMETERS


def test_random_sdxl_denoises_and_decodes_with_stand_in_text() -> None:
    from random_sdxl import UNET, VAE, RandomSDXL, load_random_sdxl

    from rayalign.config import RunConfig

    narrow = {"block_out_channels": (32, 64, 64), "attention_head_dim": (1, 1, 1), "transformer_layers_per_block": 1}
    family = RandomSDXL(torch.device("cpu"), UNET | narrow, VAE | {"block_out_channels": (32, 32, 32, 32)})
    config = RunConfig.model_validate({"model": {"resolution": 64, "dtype": "bfloat16"}})
    model = load_random_sdxl(config, torch.device("cpu"), ("policy", "reference"), family)
    text, again = model.encode(["cat", "dog"]), family.encode(model.pipe, "cat")
    x_t = torch.randn(2, *model.latent_shape)
    with torch.no_grad():
        clean = model.denoise(x_t, torch.tensor([500, 500]), text)
    assert clean.shape == (2, 4, 8, 8)
    assert model.decode(clean).shape == (2, 3, 64, 64)
    assert torch.isfinite(clean).all()
    assert torch.equal(text.embeds[:1], again.embeds)
    assert not torch.equal(text.embeds[0], text.embeds[1])
