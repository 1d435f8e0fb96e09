"""`rayalign evaluate`: base against tuned models on the same prompts and seeds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from rayalign.commands.options import Plain, read_plain, settings_parser

DESCRIPTION = """Draws the same prompts and seeds with a base model and with one or more tuned ones, scores them, and
compares: mean, median, win rate, ties, 95% intervals, paired tests, by category, drift, distances.
A run's folder brings its base, sampler and scorers along. Killed and started again, it goes on.
"""
EPILOG = """examples:
  rayalign evaluate runs/first --prompts partiprompts --num-prompts 200 --heldout hpsv2.1,aesthetic --pool.gpus 1
  rayalign evaluate first=runs/first second=runs/second --name both
  rayalign evaluate lora=my_lora.safetensors --base stabilityai/stable-diffusion-xl-base-1.0 --reward pickscore
"""
PLAIN: Plain = {
    "--base": ("base.path", str, "the untuned model [the first run's]"),
    "--prompts": (
        "prompts.source",
        str,
        "animals, shapes-heldout, partiprompts, hpdv2, pickapic-validation, .. or a file [the run's held-out ones]",
    ),
    "--prompts.column": ("prompts.column", str, "of the prompt, in files with columns"),
    "--prompts.category": ("prompts.category", str, "column of the category"),
    "--num-prompts": ("prompts.num", int, "prompts taken, evenly over the set [all]"),
    "--seeds-per-prompt": ("seeds_per_prompt", int, "images of each prompt [4]"),
    "--first-seed": ("first_seed", int, "the others follow it [1000]"),
    "--steps": ("sampler.num_steps", int, "denoising steps [the run's]"),
    "--guidance-scale": ("sampler.guidance_scale", float, "classifier-free guidance [the run's]"),
    "--batch": ("batch", int, "images drawn together [8]"),
    "--reference": ("reference.folder", str, "pictures that FID and KID compare with"),
    "--reference.extractor": ("reference.extractor", str, "clip, toy-clip, inception or your own [clip]"),
    "--pool.min": ("pool.min", int, "actors that draw [1]"),
    "--pool.max": ("pool.max", int, "the same, under load [1]"),
    "--pool.cpus": ("pool.cpus", float, "logical CPUs of one [1]"),
    "--pool.gpus": ("pool.gpus", float, "GPUs of one, fractions share [0]"),
    "--scorer.max": ("scorer.max", int, "replicas of each scorer under load [1]"),
    "--scorer.gpus": ("scorer.gpus", float, "GPUs of one [0]"),
    "--name": ("name", str, "folder of the result in output [evaluation]"),
    "--output": ("output", str, "folder of all evaluations [evaluations]"),
}
# Option -> (setting, what --help says).
LISTS = {
    "--reward": ("rewards", "scorers that a model was tuned on, with commas [the first run's]"),
    "--heldout": ("heldout", "scorers that none was tuned on, with commas [the first run's]"),
}


def main(arguments: list[str]) -> int:
    given = vars(_parser().parse_args(arguments))
    # Now, not above: pydantic, Ray and torch take seconds to import, and --help must not.
    from rayalign.cli import validate
    from rayalign.config.evaluate import EvaluateConfig
    from rayalign.trees import merged

    models = _models(given["models"])
    lists: dict[str, Any] = {
        setting: [{"scorer": name} for name in given[option].split(",") if name]
        for option, (setting, _) in LISTS.items()
        if given[option] is not None
    }
    asked = [*read_plain(given, PLAIN), lists, {"models": models} if models else {}]
    tree = merged([_of_runs(list(models.values())), *asked])
    if not tree.get("rewards") and not tree.get("heldout"):
        _refuse_missing(models)
    config = validate(tree, EvaluateConfig)

    from rayalign.pipeline.evaluate import evaluate

    evaluate(config)
    return 0


def _models(given: list[str]) -> dict[str, str]:
    """Label -> path. Raises ConfigError where two have one label: one of them would be left out without a word."""
    from rayalign.errors import ConfigError

    models: dict[str, str] = {}
    for text in given:
        label, equals, path = text.partition("=")
        label, path = (label, path) if equals else (Path(text).stem or "tuned", text)
        if label in models:
            raise ConfigError("models", text, f"is labelled {label} as {models[label]} is; set another: LABEL=PATH")
        models[label] = path
    return models


def _refuse_missing(models: dict[str, str]) -> None:
    """A run that is not there brings no scorers: that it is not is what to say, not that there are none."""
    from rayalign.errors import ConfigError

    for path in models.values():
        if not Path(path).expanduser().exists():
            raise ConfigError("models", path, "no such file or folder; give a run's folder, a LoRA or a whole model")


def _of_runs(paths: list[str]) -> dict[str, Any]:
    """What the first of the models that is a run's folder was made with."""
    from rayalign.config.files import read_settings

    for path in paths:
        file = Path(path).expanduser() / "config.yaml"
        if not file.is_file():
            continue
        run = read_settings(str(file))
        prompts = run.get("prompts", {})
        return {
            "base": {name: value for name, value in run.get("model", {}).items() if name != "tuning"},
            "sampler": run.get("sampler", {}),
            "prompts": {"source": prompts.get("heldout") or prompts.get("source"), "column": prompts.get("column")},
            "rewards": _scorers(run.get("rewards", [])),
            "heldout": _scorers(run.get("evaluation", {}).get("scorers", [])),
        }
    return {}


def _scorers(given: list[Any]) -> list[Any]:
    """Each may be a bare name. Where the run placed them is the run's own: an evaluation has pools of its own."""
    trees = [one if isinstance(one, dict) else {"scorer": one} for one in given]
    return [{name: value for name, value in tree.items() if name != "placement"} for tree in trees]


def _parser() -> argparse.ArgumentParser:
    parser = settings_parser("evaluate", DESCRIPTION, EPILOG, PLAIN)
    parser.add_argument("models", nargs="*", metavar="[LABEL=]PATH", help="a run's folder, a LoRA, or a whole model")
    for option, (_, text) in LISTS.items():
        parser.add_argument(option, dest=option, metavar="", help=text)
    return parser
