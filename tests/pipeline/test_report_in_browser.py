"""The report of a real run in a real browser: what a person sees at the end of the first run of the README."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayalign.config import RunConfig
from rayalign.pipeline.run import run
from tests.browser import chromium, find_chromium

CHROMIUM = find_chromium()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine"),
]


@pytest.fixture(scope="module")
def report(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = {
        "name": "first",
        "output": str(tmp_path_factory.mktemp("runs")),
        "iterations": 2,
        "model": {"path": "toy-sdxl"},
        "rewards": [{"scorer": "jpeg"}],
        "prompts": {"source": "shapes", "heldout": "shapes-heldout"},
        "sampler": {"num_steps": 6, "guidance_scale": 1.0},
        "pairs": {"tuned_steps": [5, 3]},
        "rollout": {"samples_per_ticket": 2, "tickets_per_iteration": 4},
        "train": {"lr": 1e-3},
        "evaluation": {"num_prompts": 4, "seeds_per_prompt": 2, "every": 1, "probe_prompts": 2},
        "placement": {"rollout": {"cpus": 0.5}, "scorer": {"cpus": 0.1}, "train": {"cpus": 0.5}},
        "stall_timeout_s": 600,
    }
    config = RunConfig.model_validate(tree)
    run(config)
    return config.folder / "report.html"


def test_it_opens_without_a_complaint_and_shows_the_run(report: Path, tmp_path: Path) -> None:
    assert report.stat().st_size < 8_000_000
    assert CHROMIUM is not None
    with chromium(CHROMIUM, tmp_path) as browser:
        page = browser.new_page()
        for width in (1280, 390):
            page.open(report, width)
            assert page.complaints == []
            assert page.run("document.documentElement.scrollWidth") == width
            # Four prompts of two seeds, before and after, all of them drawn and large enough to see.
            drawn = "[...document.querySelectorAll('.pair img')].map((one) => [one.complete, one.naturalWidth > 0])"
            assert page.run(drawn) == [[True, True]] * 16
            said = page.run("document.body.innerText")
            assert "toy-sdxl" in said
            assert "by the clock" in said
            assert "NaN" not in said
            page.click(".pair:nth-child(1) .side:nth-child(1)")
            assert page.run("document.getElementById('viewer').open") is True
            page.press("Escape")
        assert page.complaints == []
