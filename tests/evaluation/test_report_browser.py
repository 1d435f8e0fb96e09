"""The pages in a real browser: at two widths, light and dark, with every part that answers to a hand used once.

Skipped where there is no Chromium (`apt install chromium`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import yaml

from rayalign.evaluation.comparison import compare
from rayalign.evaluation.drift import drift
from rayalign.evaluation.history import History
from rayalign.evaluation.image_set import ImageSet
from rayalign.evaluation.report import write_report
from rayalign.evaluation.runs_page import write_runs_page
from rayalign.records import IterationRecord
from tests.browser import Page, chromium, find_chromium

CHROMIUM = find_chromium()
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
VIEWS = [(1280, False), (1280, True), (390, False), (390, True)]
GAINS = [0.5, -1.0, 2.0, -0.25, 1.0, 0.0]  # of jpeg, by card
LONG = "averyveryverylongwordwithoutanyspaceinitthatcannotbebrokenanywherebutmustnotwidenthepage" * 2


def make_run(folder: Path, gains: list[float], *, lr: float = 1e-3, beta: float = 0.1) -> Path:
    """What a finished run of 8 iterations leaves: 6 pictures before and after, probe, tenths, seconds, drops."""
    name = folder.name
    config = {"name": name, "iterations": 8, "model": {"path": "toy-sdxl"}, "rewards": [{"scorer": "jpeg"}]}
    config |= {"train": {"lr": lr}, "objective": {"kind": "dpo", "beta": beta}, "pairs": {"kind": "stepwise"}}
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with closing(History(folder)) as history:
        for i in range(8):
            metrics = {"loss": 0.7 - 0.05 * i, "reward": i - 3.0, "reward_low": i - 3.5, "reward_high": i - 2.5}
            metrics |= {f"implicit_reward_by_tenth/{tenth}": 0.01 * i * tenth for tenth in (2, 4, 6)}
            if i % 3 == 0:
                metrics |= {"heldout/reward": i / 8, "heldout/clip": 0.5 - i / 80, "image/diversity": 0.2}
            seconds = {"rollout": 2.0 + i, "scoring": 1.0, "training": 3.0, "waiting": 0.5}
            history.record(IterationRecord(i, i + 1, metrics, {"pairs_kept": 30, "pairs_tie": i}, seconds, 0))
    prompts = [f"a cat, number {i}" for i in range(5)] + [LONG]
    noise = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    jpeg, clip = np.full(6, -3, np.float32), np.full(6, 0.5, np.float32)
    before = ImageSet(prompts, list(range(6)), noise, {"jpeg": jpeg, "clip": clip})
    gained = {"jpeg": jpeg + np.array(gains, np.float32), "clip": clip - 0.1}
    after = ImageSet(prompts, list(range(6)), noise // 2, gained)
    before.save(folder / "images" / "before")
    after.save(folder / "images" / "after")
    summary = {
        "name": name,
        "model": "toy-sdxl",
        "num_iterations": 8,
        "rewards": [{"scorer": "jpeg", "weight": 1.0, "unit": "-kB"}],
        "reward": compare(before, after, ["jpeg"], ["clip"]),
        "drift": drift(before, after),
        "num_pairs": {"kept": 240, "tie": 28},
        "seconds": {"wall": 80.0, "rollout": 44.0, "scoring": 8.0, "training": 24.0, "waiting": 4.0},
        "versions": {"torch": "9.8.7"},
        "command": f"python jobs/tailorpo_sdxl.py --config {LONG}",
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture(scope="module")
def browser_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    assert CHROMIUM is not None
    with chromium(CHROMIUM, tmp_path_factory.mktemp("profile")) as browser:
        yield browser.new_page()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(make_run(tmp_path_factory.mktemp("runs") / "first", GAINS))


@pytest.fixture
def page(browser_page: Page) -> Iterator[Page]:
    browser_page.complaints.clear()
    yield browser_page
    assert browser_page.complaints == []


def width_of(page: Page) -> int:
    return page.run("document.documentElement.scrollWidth")


def order(page: Page) -> list[int]:
    return page.run("[...document.querySelectorAll('.pair')].map((card) => Number(card.dataset.order))")


def choose(page: Page, value: str, sign: str = "") -> None:
    page.run(
        f"(() => {{ const all = document.getElementById('order'); all.selectedIndex = [...all.options].findIndex("
        f"(one) => one.value === '{value}' && (one.dataset.sign || '') === '{sign}');"
        "all.dispatchEvent(new Event('change')); })()"
    )


def seen(page: Page) -> list[str]:
    """Of the viewer: which side it says it shows, where in the order, and which pictures are visible."""
    return page.run(
        "(() => { const v = document.getElementById('viewer'), t = (c) => v.querySelector(c).textContent;"
        "const on = [...v.querySelectorAll('.large img')].filter((i) => getComputedStyle(i).visibility === 'visible');"
        "return [t('.which'), t('.place'), on.map((image) => image.alt).join()]; })()"
    )


@pytest.mark.parametrize(("width", "dark"), VIEWS)
def test_the_report_fits_and_answers(page: Page, report: Path, width: int, dark: bool) -> None:
    assert report.stat().st_size < 8_000_000
    page.open(report, width, dark=dark)
    assert width_of(page) == width
    red = page.run("Number(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])")
    assert red < 60 if dark else red > 200

    assert order(page) == [0, 1, 2, 3, 4, 5]
    choose(page, "jpeg", "-1")
    assert order(page) == [2, 4, 0, 5, 3, 1]  # gains 2, 1, 0.5, 0, -0.25, -1
    choose(page, "jpeg", "1")
    assert order(page) == [1, 3, 5, 0, 4, 2]
    choose(page, "")
    assert order(page) == [0, 1, 2, 3, 4, 5]

    page.click(".pair:nth-child(2) .side:nth-child(1)")
    assert seen(page) == ["before", "2 of 6", "a cat, number 1 (before)"]
    assert width_of(page) == width
    page.click("#viewer .large")
    assert seen(page) == ["after", "2 of 6", "a cat, number 1 (after)"]
    page.press("f")
    assert seen(page)[0] == "before"
    page.press("ArrowUp")
    assert seen(page)[0] == "after"
    page.press("ArrowRight")
    assert seen(page) == ["after", "3 of 6", "a cat, number 2 (after)"]
    page.press("ArrowLeft")
    page.press("ArrowLeft")
    page.press("ArrowLeft")
    assert seen(page)[1:] == ["6 of 6", f"{LONG} (after)"]
    assert page.run("document.getElementById('viewer').scrollWidth <= innerWidth")
    page.click("#viewer [data-step='1']")
    assert seen(page)[1] == "1 of 6"
    page.click("#viewer [data-step='-1']")
    page.click("#viewer .flip")
    assert seen(page)[:2] == ["before", "6 of 6"]
    page.press("Escape")
    assert page.run("document.getElementById('viewer').open") is False
    page.click(".pair:nth-child(1) .side:nth-child(2)")
    assert seen(page)[:2] == ["after", "1 of 6"]
    page.click("#viewer .close")
    assert page.run("document.getElementById('viewer').open") is False

    for number in range(page.run("document.querySelectorAll('details').length")):
        page.click(f"details:nth-of-type({number + 1}) summary")
    assert page.run("[...document.querySelectorAll('details')].every((one) => one.open)")
    assert "lr: 0.001" in page.run("document.querySelector('details').innerText")
    assert width_of(page) == width


def hovered(page: Page, chart: str) -> list[str]:
    return page.run(
        f"[...document.querySelectorAll(`{chart} .hover.on tspan`)].map((row) => row.textContent)"
    )


def test_charts_say_the_value_under_the_pointer(page: Page, report: Path) -> None:
    page.open(report, 1280)
    page.hover(".wide .chart", (0.999, 0.5))
    assert hovered(page, ".wide .chart") == ["8: 4"]  # the last iteration's reward: 7 - 3
    bars = "[aria-label='Seconds of each stage by iteration']"
    page.hover(bars, (0.999, 0.5))
    assert hovered(page, bars) == ["iteration 8", "rollout 9 s", "scoring 1 s", "training 3 s", "waiting 0.5 s"]
    assert hovered(page, ".wide .chart") == []  # the pointer left it


def test_a_legend_hides_its_series(page: Page, report: Path) -> None:
    page.open(report, 1280)
    chart = "[aria-label='Implicit reward by timestep']"
    shown = f"[...document.querySelectorAll(`{chart} .series`)].map((one) => getComputedStyle(one).display !== 'none')"
    assert page.run(shown) == [True, True]
    page.hover(chart, (0.999, 0.1))
    assert hovered(page, chart) == ["last 2 iterations, 6: 0.39"]  # 0.01 x 6 x (6 + 7) / 2
    page.click(f".plot:has({chart}) .keys button")
    assert page.run(shown) == [False, True]
    page.hover(chart, (0.99, 0.1))
    assert hovered(page, chart) == ["first 2 iterations, 6: 0.03"]
    page.click(f".plot:has({chart}) .keys button")
    assert page.run(shown) == [True, True]


def test_paper_shows_no_controls(page: Page, report: Path) -> None:
    page.open(report, 1280, dark=True)
    page.call("Emulation.setEmulatedMedia", media="print", features=[])
    try:
        controls = "[...document.querySelectorAll('select, dialog')]"
        assert page.run(f"{controls}.every((one) => getComputedStyle(one).display === 'none')")
        assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    finally:
        page.call("Emulation.setEmulatedMedia", media="", features=[])


def test_the_browser_would_have_complained(browser_page: Page, tmp_path: Path) -> None:
    """A page with an error in it, so that silence above means something."""
    (tmp_path / "bad.html").write_text("<!doctype html><script>console.error('oh'); undefinedFunction()</script>")
    browser_page.open(tmp_path / "bad.html", 390)
    said = " ".join(browser_page.complaints)
    assert "oh" in said
    assert "undefinedFunction" in said


@pytest.mark.parametrize(("width", "dark"), VIEWS)
def test_the_page_of_several_runs_fits_and_answers(page: Page, tmp_path: Path, width: int, dark: bool) -> None:
    runs = [make_run(tmp_path / "first", GAINS), make_run(tmp_path / LONG, GAINS[::-1], lr=0.5)]
    page.open(write_runs_page(runs, tmp_path / "runs.html"), width, dark=dark)
    assert width_of(page) == width
    shown = "[...document.querySelectorAll('.series')].map((one) => one.getClientRects().length > 0)"
    before = page.run(shown)
    page.click(".keys button")
    after = page.run(shown)
    assert before.count(True) == after.count(True) + 1  # of the wide and the narrow drawing one is on the screen
    page.click(".keys button")
    assert page.run(shown) == before
    choose(page, "first\\njpeg", "-1")
    assert order(page) == [2, 4, 0, 5, 3, 1]
    page.click(".pair:nth-child(1) .side:nth-child(1)")
    assert seen(page) == ["before", "1 of 6", "a cat, number 2 (before)"]
    page.press("f")
    assert seen(page)[0] == "first"
    page.press("f")
    assert seen(page)[0] == LONG
    assert page.run("document.getElementById('viewer').scrollWidth <= innerWidth")
    page.press("f")
    assert seen(page)[0] == "before"
    page.press("Escape")
    assert width_of(page) == width
