import json
import re
from contextlib import closing
from html.parser import HTMLParser

import numpy as np
import pytest
import yaml

from rayalign.evaluation.comparison import compare
from rayalign.evaluation.drift import drift
from rayalign.evaluation.history import History
from rayalign.evaluation.image_set import ImageSet
from rayalign.evaluation.report import write_report
from rayalign.evaluation.report_run import load_snippet
from rayalign.records import IterationRecord

EVIL = "<script>alert('gotcha')</script>\" onerror=\"alert(1)"


class Page(HTMLParser):
    """Tags with attributes, and the text outside style and script."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.words, self.inside = [], [], None
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside not in ("style", "script"):
            self.words.append(data)


@pytest.fixture
def run(tmp_path):
    """A finished run of 3 iterations: 4 prompts x 2 seeds of 16 x 16 pixels, jpeg guiding, clip held out."""
    config = {"name": "tiny", "output": "runs", "iterations": 3, "rewards": [{"scorer": "jpeg"}]}
    config |= {"model": {"path": "toy-sdxl"}, "sampler": {"num_steps": 20, "guidance_scale": 5.0, "eta": 1.0}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    with closing(History(tmp_path)) as history:
        for i in range(3):
            metrics = {
                "loss": 0.7 - 0.1 * i,
                "reward": i - 3.0,
                "reward_low": i - 3.5,
                "reward_high": i - 2.5,
            }
            counts = {"pairs_kept": 30, "pairs_tie": 2}
            history.record(IterationRecord(i, i + 1, metrics, counts, {"rollout": 2.0, "training": 1.0}, 0))
    prompts = [prompt for prompt in ("a cat", "a dog", EVIL, "an ant") for _ in range(2)]
    noise = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    before = ImageSet(
        prompts, list(range(8)), noise, {"jpeg": np.float32([-3] * 8), "clip": np.float32([0.5] * 8)}
    )
    # jpeg: +1 on seven, failed on one. clip: -0.25 on all.
    after_scores = {"jpeg": np.float32([-2] * 7 + [np.nan]), "clip": np.float32([0.25] * 8)}
    after = ImageSet(prompts, list(range(8)), noise // 2, after_scores)
    before.save(tmp_path / "images" / "before")
    after.save(tmp_path / "images" / "after")
    summary = {
        "name": "tiny",
        "model": "toy-sdxl",
        "num_iterations": 3,
        "policy_version": 3,
        "rewards": [{"scorer": "jpeg", "weight": 1.0, "unit": "-kB at quality 95"}],
        "reward": compare(before, after, ["jpeg"], ["clip"]),
        "drift": drift(before, after),
        "num_pairs": {"kept": 9000, "tie": 750, "score_failed": 250},
        "denoiser_calls_per_trajectory": 24.0,
        "denoiser_calls_per_pair_trained": {"policy": 1.0, "reference": 1.0},
        "seconds": {"wall": 754.0, "rollout": 600.0, "scoring": 0.0, "training": 200.0},
        "ray": {"version": "2.60.0", "restarts": {"train": 2}},
        "versions": {"torch": "9.8.7"},
        "command": "python jobs/tailorpo.py --config <config>",
        "config_hash": "cafe0123",
    }
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    return tmp_path


def read(folder):
    path = write_report(folder)
    assert path == folder / "report.html"
    assert not list(folder.glob("*.partial"))
    return path.read_text()


def test_the_key_numbers_are_there(run):
    text = Page(read(run)).text
    assert "toy-sdxl, tuned for 3 iterations on jpeg." in text
    assert "−3.000 → −2.000" in text
    assert "+1.000" in text
    assert "100.0%" in text
    assert "-kB at quality 95" in text
    assert "1 failed" in text
    assert "−0.25" in text
    assert "held-out" in text
    assert "guiding" in text
    assert "clip was held out and fell while the guiding reward rose" in text
    assert "12 min 34 s by the clock" in text
    assert "75.0%" in text
    assert "scoring" not in text.split("by the clock")[1].split("Pairs and calls")[0]  # no time, no row
    assert "pairs dropped: equal rewards 750 7.5%" in text
    assert "pairs trained on 9,000 90.0%" in text
    assert "denoiser calls per trajectory drawn 24" in text
    assert "torch 9.8.7" in text
    assert "cafe0123" in text
    assert "--config <config>" in text
    assert "edge density" in text
    assert "diversity" in text


def test_a_standardised_reward_says_what_its_curve_is_in(run):
    assert "deviations" not in Page(read(run)).text
    summary = json.loads((run / "summary.json").read_text())
    summary["rewards"][0]["scale"] = "standardised"
    (run / "summary.json").write_text(json.dumps(summary))
    assert "jpeg count in deviations from their own mean so far" in Page(read(run)).text


def test_warnings_have_a_section_where_there_are_any(run):
    assert "Warnings" not in Page(read(run)).text
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"warnings": [f"scorer {EVIL} answered 0.5"]}))
    assert f"Warnings scorer {EVIL} answered 0.5" in Page(read(run)).text
    # Of a run that still goes they are read off its history.
    (run / "summary.json").unlink()
    with closing(History(run, 3)) as history:
        history.record(IterationRecord(3, 4, {}, {"pairs_tie": 8}, {}, 0, {"constant": {"flat": [0.5, 24.0, 20]}}))
    text = Page(read(run)).text
    assert "scorer flat answered 0.5 for all 24 images of iteration 4, at least 20 of them different" in text
    assert "all 8 pairs of iteration 4 that have rewards are ties" in text


def test_untrusted_text_is_escaped(run):
    html = read(run)
    page = Page(html)
    assert EVIL in page.text  # shown as it is ...
    assert [tag for tag, _ in page.tags].count(
        "script"
    ) == 1
    assert "<script>alert" not in html
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_names_of_files_and_settings_are_escaped_too(run):
    """A file name may hold anything but a slash; it reaches the page through the settings and the command line."""
    evil = "<img src=x onerror=alert(1)>.txt"
    config = yaml.safe_load((run / "config.yaml").read_text())
    config |= {"name": evil, "prompts": {"source": evil}, "rewards": [{"scorer": evil}]}
    (run / "config.yaml").write_text(yaml.safe_dump(config | {"model": {"path": f"./{evil}"}}))
    summary = json.loads((run / "summary.json").read_text())
    summary |= {"name": evil, "model": evil, "command": f"python job.py --prompts '{evil}'"}
    summary["rewards"][0]["unit"] = evil
    summary["versions"] = {evil: evil}
    (run / "summary.json").write_text(json.dumps(summary))
    html = read(run)
    page = Page(html)
    assert evil in page.text
    assert "<img src=x" not in html
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_no_secret_reaches_the_page(run, monkeypatch):
    """Of a folder that another program wrote: our own summary and settings hold none."""
    monkeypatch.setenv("WANDB_API_KEY", "correct-horse-staple")
    summary = json.loads((run / "summary.json").read_text())
    summary["command"] = "python job.py --output s3://key:letmein99@bucket correct-horse-staple"
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "config.yaml").write_text("output: https://me:letmein99@host/runs\n")
    html = read(run)
    assert "letmein99" not in html
    assert "correct-horse-staple" not in html
    assert "s3://***@bucket" in html


def test_nothing_comes_from_a_network(run):
    html = read(run)
    for _, attributes in Page(html).tags:
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            assert attributes.get(name, "data:").startswith(("data:", "#"))
    assert not re.search(r"@import|url\(|https?://|//cdn", html)
    assert "default-src 'none'" in html


def test_pairs_carry_pictures_and_what_sorting_needs(run):
    page = Page(read(run))
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 16
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)
    changes = [json.loads(a["data-changes"]) for tag, a in page.tags if tag == "figure"]
    assert changes[0] == {"jpeg": 1.0, "clip": -0.25}
    assert changes[-1] == {"clip": -0.25}  # the failed score is no change
    assert sum(tag == "option" for tag, _ in page.tags) == 1 + 2 * 2


def test_large_pictures_become_thumbnails(run):
    big = ImageSet(["a"], [0], np.zeros((1, 600, 400, 3), np.uint8), {"jpeg": np.float32([1])})
    for side in ("before", "after"):
        big.save(run / "images" / side)
    assert "data:image/jpeg;base64," in read(run)


def test_pictures_have_a_budget(run, monkeypatch):
    """Noise compresses badly, and the page must stay one that opens."""
    sizes = [len(attributes["src"]) for tag, attributes in Page(read(run)).tags if tag == "img"]
    monkeypatch.setattr("rayalign.evaluation.report_pictures.MAX_BYTES", sum(sizes[:6]))
    page = Page(read(run))
    assert sum(tag == "figure" for tag, _ in page.tags) == 3
    assert "3 of 8: the first seed" in page.text


def test_the_method_is_named(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    config |= {"pairs": {"kind": "stepwise", "guidance": {"enabled": True}}, "objective": {"kind": "dpo"}}
    config |= {"reference": {"kind": "copied"}, "timesteps": {"kind": "uniform"}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert "on jpeg: DPO on stepwise pairs, guided, copied reference." in Page(read(run)).text
    config |= {"pairs": {"kind": "sample"}, "objective": {"kind": "ddpo"}, "reference": {"kind": "fixed"}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert "on jpeg: DDPO on samples." in Page(read(run)).text


def test_a_run_that_still_goes(run):
    (run / "summary.json").unlink()
    (run / "images" / "after" / "scores.json").unlink()
    (run / "history.jsonl").write_text("".join((run / "history.jsonl").read_text().splitlines(True)[:2]))
    text = Page(read(run)).text
    assert (
        "2 of 3 iterations" in text
    )
    assert (
        "No summary yet" in text
    )
    assert (
        "No pictures from after tuning yet" in text
    )
    assert "pairs trained on 60 93.8%" in text  # 2 x 30 of 2 x 32
    assert "Training reward" in text
    assert "Every scorer" not in text


def test_pictures_without_a_summary_are_compared_here(run):
    (run / "summary.json").unlink()
    text = Page(read(run)).text
    assert "Every scorer" in text
    assert "−0.25" in text
    assert "Drift" in text


@pytest.mark.parametrize(
    "piece", ["config.yaml", "summary.json", "history.jsonl", "images/before/scores.json"]
)
def test_any_piece_may_be_missing(run, piece):
    (run / piece).unlink()
    assert "tiny" in read(run)


@pytest.mark.parametrize("piece", ["config.yaml", "summary.json", "history.jsonl"])
def test_any_piece_may_be_damaged(run, piece):
    (run / piece).write_text("[1, {\n")
    assert "</html>" in read(run)


def test_an_empty_folder_has_a_page_and_no_folder_an_error(tmp_path):
    assert "A model, tuned" in Page(read(tmp_path)).text
    with pytest.raises(FileNotFoundError, match="no run folder"):
        write_report(tmp_path / "nowhere")


def test_summaries_with_other_shapes_are_read(run):
    plain = {
        "drift": {"before": {"saturation": 0.5}, "after": {"saturation": 0.25}},
        "reward": {"jpeg": {"before": {"mean": 1}}},
    }
    (run / "summary.json").write_text(json.dumps(plain))
    text = Page(read(run)).text
    assert "saturation mean colour saturation, 0 to 1 0.5 0.25 −0.25" in text


def test_the_snippet_is_python_that_names_the_lora():
    config = {
        "model": {"path": "owner/o'model"},
        "output": "/data/runs",
        "name": "x",
        "sampler": {"num_steps": 20},
    }
    snippet = load_snippet(config, {})
    compile(snippet, "snippet", "exec")
    assert 'from_pretrained("owner/o\'model")' in snippet
    assert "num_inference_steps=20" in snippet
    assert "load_lora_weights('/data/runs/x/lora')" in snippet
    assert load_snippet({"model": {"path": "stub:1"}}, {}) == load_snippet({}, {}) == ""
