"""Base against tuned models on the same prompts and seeds, through Ray Data; killed and started again, it goes on.

    batches that are missing --> pool of EvaluationActors --> driver: a file a batch (evaluation/part_files.py)
                                        |        ^
                                        | images | scores
                                        v        |
                                     reward services

Then, from the files alone: intervals, win rates, categories, drift, distances (evaluation/model_comparison.py).
"""

from __future__ import annotations

import hashlib
import inspect
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from rayalign.config import RewardConfig
from rayalign.config.evaluate import BASE, EvaluateConfig
from rayalign.errors import ConfigError
from rayalign.evaluation.distribution import MIN_PICTURES
from rayalign.evaluation.features import EXTRACTORS, build_extractor, check_extractor
from rayalign.evaluation.image_set import ImageSet
from rayalign.evaluation.model_comparison import compare_models
from rayalign.evaluation.model_distances import check_reference, clip_distance, distances_to
from rayalign.evaluation.model_table import model_table
from rayalign.evaluation.part_files import PartFiles
from rayalign.evaluation.prompt_sets import PromptRow, load_prompt_set
from rayalign.models.families import find_family
from rayalign.models.tuned import check_tuned, tuned_path
from rayalign.pipeline.cluster import connect
from rayalign.pipeline.evaluate_actors import drawn
from rayalign.pipeline.scoring.service import start_reward_services, stop_reward_services
from rayalign.pipeline.signals import interruptible
from rayalign.pipeline.streamed import streamed
from rayalign.rewards.table import absolute_options, check_scorer, scorer_facts
from rayalign.weight_files import weights_stamp
from rayalign.whole_files import write_whole

EMBEDDERS = ("clip", "toy-clip")  # scorers whose weights the distance between two pictures may use


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Draws, scores and compares, or goes on doing so, to the end; returns what evaluation.json holds.

    Raises ConfigError before any actor starts if a setting is wrong; RunStopped if nothing got done for too long;
    Interrupted on SIGTERM or Ctrl-C, once everything is down.
    """
    prompts = _prompts(config)
    config = _absolute(config)
    _check(config, len(prompts) * config.seeds_per_prompt)
    rows = [(row.prompt, config.first_seed + k) for row in prompts for k in range(config.seeds_per_prompt)]
    batches = [rows[start : start + config.batch] for start in range(0, len(rows), config.batch)]
    files = PartFiles(config.folder, config.labels, len(batches))
    files.begin(config.decides_pictures() | {"models": _stamped(config), "prompts_read": _digest(prompts)})
    missing = {label: files.missing(label) for label in config.labels}
    print(f"{len(rows)} images ({len(prompts)} prompts) by each of {', '.join(config.labels)}", flush=True)
    if any(missing.values()):
        with interruptible():
            _draw(config, batches, files, missing)
    return _report(config, files, prompts)


def _prompts(config: EvaluateConfig) -> list[PromptRow]:
    """Evenly over the set, which may be sorted by category."""
    asked = config.prompts
    found = load_prompt_set(asked.source, asked.column, asked.category)
    if asked.num is not None and asked.num > len(found):
        print(f"{asked.source} has {len(found)} prompts; {asked.num} were asked for", flush=True)
    if asked.num is None or asked.num >= len(found):
        return found
    return [found[int(place)] for place in np.linspace(0, len(found) - 1, asked.num).round()]


def _stamped(config: EvaluateConfig) -> dict[str, str]:
    """Label -> path and what is there now: a run that trained on must not be given the pictures from before."""
    stamps = {label: weights_stamp(path) for label, path in config.models.items()}
    return {label: f"{path} (weights {stamps[label]})" for label, path in config.models.items()}


def _digest(prompts: list[PromptRow]) -> str:
    """A file of prompts may change under its name."""
    text = json.dumps([(row.prompt, row.category) for row in prompts])
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def _absolute(config: EvaluateConfig) -> EvaluateConfig:
    """Local paths written out: actors have another working folder."""
    models = {label: tuned_path(path, f"models.{label}") for label, path in config.models.items()}
    base = tuned_path(config.base.path, "base.path")
    rewards, heldout = (
        tuple(one.model_copy(update={"options": absolute_options(one.scorer, one.options)}) for one in group)
        for group in (config.rewards, config.heldout)
    )
    changes = {"models": models, "base": config.base.model_copy(update={"path": base})}
    output = str(Path(config.output).expanduser().resolve())
    return config.model_copy(update=changes | {"rewards": rewards, "heldout": heldout, "output": output})


def _check(config: EvaluateConfig, num_images: int) -> None:
    for reward in (*config.rewards, *config.heldout):
        check_scorer(reward.scorer, reward.options)
    find_family(config.base.path, config.base.family)
    for label, path in config.models.items():
        check_tuned(path, config.base, f"models.{label}")
    if config.reference.folder is not None:
        _check_reference(config, num_images)


def _check_reference(config: EvaluateConfig, num_images: int) -> None:
    """Now, since distances come last, and would cost all that was drawn."""
    reference = config.reference
    if num_images < MIN_PICTURES:
        fix = f"{num_images} images of each model are too few for FID and KID; set seeds_per_prompt or prompts.num up"
        raise ConfigError("reference.folder", reference.folder, fix)
    check_reference(str(reference.folder))
    check_extractor(reference.extractor, reference.options, "reference")


def _draw(config: EvaluateConfig, batches: list[Any], files: PartFiles, missing: dict[str, list[int]]) -> None:
    embedded = connect(config.scorer_names)
    try:
        scorers = [*config.rewards, *config.heldout]
        start_reward_services(config.key, scorers, config.scorer, config.service, config.cpu_threads)
        for label, parts in missing.items():
            started, done = time.monotonic(), files.num_parts - len(parts)
            blocks = [_block(part, batches[part], config.batch) for part in parts]
            for table in streamed(f"drawing {label}", config.stall_timeout_s, drawn, config, label, blocks):
                files.write(label, table["part"][0].as_py(), table.drop_columns(["part"]))
                done += 1
                rate = table.num_rows * (done - files.num_parts + len(parts)) / (time.monotonic() - started)
                print(f"{label}: {done}/{files.num_parts} batches, {rate:.1f} images/s", flush=True)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", flush=True)
        raise
    finally:
        if embedded:
            ray.shutdown()
        else:
            stop_reward_services(config.key)


def _block(part: int, batch: list[tuple[str, int]], size: int) -> pa.Table:
    first = part * size
    return pa.table(
        {
            "part": [part] * len(batch),
            "row": list(range(first, first + len(batch))),
            "prompt": [prompt for prompt, _ in batch],
            "seed": [seed for _, seed in batch],
        }
    )


def _report(config: EvaluateConfig, files: PartFiles, prompts: list[PromptRow]) -> dict[str, Any]:
    names = config.scorer_names
    sets = {label: files.read(label, names) for label in config.labels}
    categories = [row.category for row in prompts for _ in range(config.seeds_per_prompt)]
    units = {name: scorer_facts(name).unit for name in names}
    report = {
        "name": config.name,
        "base": {"path": config.base.path},
        "prompts": config.prompts.source,
        "num_prompts": len(prompts),
        "seeds_per_prompt": config.seeds_per_prompt,
        "first_seed": config.first_seed,
    }
    compared = compare_models(sets, BASE, [one.scorer for one in config.rewards], units, categories)
    report["base"] |= compared["base"]
    report["models"] = {label: {"path": config.models[label], **entry} for label, entry in compared["models"].items()}
    _add_distances(config, report, sets)
    _write(config.folder, report, sets, categories)
    table = model_table(report)
    print(f"\n{table}\nresult  {config.folder / 'evaluation.json'}", flush=True)
    return report


def _add_distances(config: EvaluateConfig, report: dict[str, Any], sets: dict[str, ImageSet]) -> None:
    embedder = next((one for one in (*config.heldout, *config.rewards) if one.scorer in EMBEDDERS), None)
    if embedder is not None:
        extractor = build_extractor(embedder.scorer, _looking(embedder))
        for label, entry in report["models"].items():
            entry["clip_distance"] = clip_distance(sets[BASE], sets[label], extractor)
    reference = config.reference
    if reference.folder is not None:
        extractor = build_extractor(reference.extractor, reference.options, "reference.extractor")
        report["distances"] = distances_to(reference.folder, sets, extractor)


def _looking(embedder: RewardConfig) -> dict[str, Any]:
    """The scorer's options that say which model looks; its others say how it scores."""
    taken = inspect.signature(EXTRACTORS[embedder.scorer]).parameters
    return {name: value for name, value in embedder.options.items() if name in taken}


def _write(folder: Path, report: dict[str, Any], sets: dict[str, ImageSet], categories: list[str]) -> None:
    import pyarrow.parquet as pq

    rows = [
        {"model": label, "prompt": prompt, "category": category, "seed": seed}
        | {name: float(scores[row]) if np.isfinite(scores[row]) else None for name, scores in images.scores.items()}
        for label, images in sets.items()
        for row, (prompt, category, seed) in enumerate(zip(images.prompts, categories, images.seeds, strict=True))
    ]
    pq.write_table(pa.Table.from_pylist(rows), folder / "scores.parquet")
    for label, images in sets.items():
        images.save(folder / "images" / label)
    write_whole(folder / "evaluation.md", model_table(report))
    write_whole(folder / "evaluation.json", json.dumps(report, indent=1, ensure_ascii=False))
