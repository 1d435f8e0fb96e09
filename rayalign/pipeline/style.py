"""A style alignment, wired: one preference set, one run for each method on it, one table over all of them.

    base model -> pictures -> style -> pairs.parquet --> run (sft) -+
                     |                     |---------> run (dpo) -+--> held-out pictures -> FID, KID, scores -> table
                     |                     '---------> run (rpo) -+                              ^
                     '--> held-out pictures, and the same in the style --------------------------'

Everything that is whole stays: the same command again goes on from the first thing that is not.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.exceptions import GetTimeoutError, RayTaskError

from rayalign.config import RunConfig
from rayalign.config.style import FolderStyle, StyleConfig
from rayalign.data.style_pictures import PictureRow
from rayalign.errors import RunStopped
from rayalign.evaluation.features import build_extractor
from rayalign.evaluation.image_set import ImageSet
from rayalign.evaluation.style_table import BASE, TARGET, measure_style, style_grid, style_table
from rayalign.pipeline.cluster import check_placement, connect
from rayalign.pipeline.draw import stored_image_set
from rayalign.pipeline.output_check import check_writable
from rayalign.pipeline.run import run
from rayalign.pipeline.scoring.service import start_reward_services, stop_reward_services
from rayalign.pipeline.signals import interruptible
from rayalign.pipeline.style_pictures import export_pictures, make_pictures
from rayalign.pipeline.style_validate import absolute_style, check_style
from rayalign.pipeline.summary import read_summary
from rayalign.pipeline.validate import with_absolute_paths
from rayalign.progress import Progress
from rayalign.whole_files import write_whole


def run_style(config: StyleConfig) -> dict[str, Any]:
    """Runs, or resumes, to the end; returns what style.json holds ({} where the base's pictures are only exported).

    Raises ConfigError before anything starts if a setting is wrong; RunStopped if a run stopped itself.
    """
    started = time.monotonic()
    config = absolute_style(config)
    training, heldout = check_style(config)
    check_writable(config)
    embedded = connect(config.all_scorers)
    try:
        with interruptible():
            for method in config.methods:
                check_placement(config.run_of(method))
            return _StyleRun(config, training, heldout, started).finish()
    finally:
        if embedded:
            ray.shutdown()


class _StyleRun:
    """What the driver keeps while the job goes."""

    def __init__(
        self, config: StyleConfig, training: list[PictureRow], heldout: list[PictureRow], started: float
    ) -> None:
        self.config, self.training, self.heldout, self.started = config, training, heldout, started
        self.progress = Progress(config.iterations)

    def finish(self) -> dict[str, Any]:
        config, folder = self.config, self.config.folder
        tree = config.model_dump(mode="json")
        tree["pairs"]["path"] = ""  # so that `--config` on it works under another name
        write_whole(folder / "config.yaml", yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
        if isinstance(config.style, FolderStyle) and config.style.export:
            rows = [*self.training, *self.heldout]
            self._task(export_pictures, len(rows), config, rows, Path(config.style.path))
            self.progress.stage(
                f"{len(rows)} pictures of the base in {config.style.path}; restyle them in their places"
            )
            return {}
        sets = self._references()
        for method in config.methods:
            sets[method.upper()] = self._tuned(config.run_of(method), sets[BASE])
        return self._report(sets)

    def _references(self) -> dict[str, ImageSet]:
        """The pairs, and the held-out pictures of the base and in the style; what is there already stays."""
        config = self.config
        sets: dict[str, ImageSet] = {}
        for name in (BASE, TARGET):
            found = stored_image_set(config.folder / "images" / name, config)
            sets |= {name: found} if found else {}
        training = [] if Path(config.pairs.path).exists() else self.training
        heldout = [] if len(sets) == 2 else self.heldout
        if training or heldout:
            self.progress.stage(
                f"drawing {len(training)} training and {len(heldout)} held-out pictures of {config.model.path}, "
                f"each with its twin in the style ({config.style.kind})"
            )
            rewards, placement = config.all_rewards, config.placement
            start_reward_services(config.key, rewards, placement.scorer, config.service, placement.cpu_threads)
            try:
                drawn = self._task(make_pictures, len(training) + len(heldout), config, training, heldout)
            finally:
                stop_reward_services(config.key)
            for name, images in zip((BASE, TARGET), drawn or (), strict=False):
                images.save(config.folder / "images" / name)
                sets[name] = images
        self.progress.stage(f"pairs   {config.pairs.path}")
        return {name: sets[name] for name in (BASE, TARGET)}

    def _task(self, function: Any, num_pictures: int, *arguments: Any) -> Any:
        """In a task of its own, which keeps Ray Data's messages out of this process's output."""
        batches = -(-num_pictures // self.config.evaluation.batch)
        # Nothing is heard from the pool in between: each of its batches may take the time after which a run is stuck.
        timeout_s = self.config.stall_timeout_s * max(1, batches)
        reference = ray.remote(num_cpus=0)(function).remote(*arguments)
        late = f"{num_pictures} pictures were not drawn in {timeout_s:g} s (stall_timeout_s for each batch of them)"
        return _answer(reference, timeout_s, late)

    def _tuned(self, method: RunConfig, base: ImageSet) -> ImageSet:
        """The held-out pictures after the method's run, which is not begun again where it is whole."""
        after = method.folder / "images" / "after"
        summary = read_summary(method.folder)
        trained = summary.get("num_iterations", 0) >= method.iterations
        whole = trained and stored_image_set(after, self.config) is not None
        if whole and summary.get("config_hash") == with_absolute_paths(method).hash():
            self.progress.stage(f"{method.name.upper()} is done: {method.folder}")
        else:
            before = method.folder / "images" / "before"
            if stored_image_set(before, self.config) is None:
                base.save(before)  # every method has the same base: no need to draw it again
            self.progress.stage(f"\n{method.name.upper()}")
            run(method)
        found = stored_image_set(after, self.config)
        assert found is not None
        return found

    def _report(self, sets: dict[str, ImageSet]) -> dict[str, Any]:
        config, folder = self.config, self.config.folder
        measuring = ray.remote(num_cpus=0, num_gpus=config.placement.scorer.gpus)(_measure)
        timeout_s = config.stall_timeout_s * len(sets)
        late = (
            f"{len(sets)} sets of pictures were not measured in {timeout_s:g} s (stall_timeout_s for each): no node "
            "has room for the task that does (placement.scorer.gpus), or its weights do not come"
        )
        measured = _answer(measuring.remote(config, sets), timeout_s, late)
        report = {
            "name": config.name,
            "model": config.model.path,
            "style": config.style.model_dump(mode="json"),
            "num_pairs": config.num_pairs,
            **measured,
            "seconds": {"wall": time.monotonic() - self.started},
        }
        table = style_table(report)
        write_whole(folder / "style.json", json.dumps(report, indent=1))
        write_whole(folder / "style.md", f"{table}\n")
        style_grid(sets).save(folder / "style.png")
        self.progress.stage(f"\n{table}\n")
        self.progress.stage(f"table   {folder / 'style.md'}")
        self.progress.stage(f"images  {folder / 'style.png'}")
        return report


def _answer(reference: Any, timeout_s: float, late: str) -> Any:
    """What a task returns. Raises RunStopped, saying `late`, if it takes longer; its error as it was in the task."""
    try:
        return ray.get(reference, timeout=timeout_s)
    except GetTimeoutError:
        raise RunStopped(late) from None
    except RayTaskError as error:
        raise error.cause from error  # a person is to see what was wrong, not the task's traceback


def _measure(config: StyleConfig, sets: dict[str, ImageSet]) -> dict[str, Any]:
    """In a task of its own, placed like a scorer."""
    return measure_style(sets, build_extractor(config.features.extractor, config.features.options, "features"))
