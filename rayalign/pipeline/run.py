"""One run, wired: this file starts everything, watches it, and writes down what came of it.

    tickets -> gate -> rollout pool -> pair stream -> train workers
                 ^        |   ^                           |
                 |        v   | scores                    v
                 |   reward services                 PolicyBoard (version, weights, checksum, canary)
                 '----------- wait for version -----------'

driver     consumes IterationRecords from the board; produces history, TensorBoard, progress; waits for the trainer
gate       consumes tickets; waits for a policy version on the board                          (gate.py)
rollout    consumes tickets; produces tables of pairs; waits for scores                       (rollout.py)
trainer    consumes tables of pairs; produces checkpoints and policy versions                 (trainer.py)
"""

from __future__ import annotations

import shutil
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import ray
from ray.data import ExecutionOptions
from ray.train import DataConfig, FailureConfig, ScalingConfig
from ray.train import RunConfig as TrainRunConfig
from ray.train.torch import TorchTrainer

from rayalign.config import DatasetPairs, RewardConfig, RunConfig
from rayalign.errors import RunStopped
from rayalign.evaluation import callouts
from rayalign.evaluation.callouts import SaidOnce
from rayalign.evaluation.comparison import before_after_table
from rayalign.evaluation.grids import before_after_grid
from rayalign.evaluation.history import read_history
from rayalign.evaluation.image_set import ImageSet
from rayalign.evaluation.report import write_report
from rayalign.evaluation.trackers import Trackers
from rayalign.evaluation.wrong import rolled_back_to, what_went_wrong
from rayalign.learning.good_policy import load_good
from rayalign.models.export import save_policy
from rayalign.models.family import Family
from rayalign.models.load import find_family
from rayalign.models.weight_sets import WeightArrays
from rayalign.pipeline.board import start_board
from rayalign.pipeline.cluster import check_placement, connect
from rayalign.pipeline.draw import draw_image_set, evaluation_rows
from rayalign.pipeline.encode import fill_cache
from rayalign.pipeline.output_check import check_output, claim
from rayalign.pipeline.pair_stream import pair_dataset_factory
from rayalign.pipeline.resume import adopt, check_resume, known_history, store_of
from rayalign.pipeline.reward_service import start_reward_services, stop_reward_services
from rayalign.pipeline.summary import summarise, write_summary
from rayalign.pipeline.text_store import text_encodings
from rayalign.pipeline.trainer import train_loop
from rayalign.pipeline.validate import check_inputs, with_absolute_paths
from rayalign.pipeline.watch import InThread, Watch
from rayalign.progress import Progress
from rayalign.rewards.statistics import NO_SCORES, ByScorer, Moments, moments_of

POLL_S = 1.0
BEST_FOLDER = "best"


def run(config: RunConfig) -> dict[str, Any]:
    """Runs, or resumes, to the end; returns what summary.json holds.

    Raises ConfigError before any actor starts if a setting is wrong; RunStopped if the run stopped itself.
    """
    started = time.monotonic()
    config = with_absolute_paths(config)
    notes = check_inputs(config)
    check_resume(config)
    check_output(config)
    lock = claim(config)
    for note in notes:
        print(note, flush=True)
    embedded = connect(config.all_scorers)
    try:
        check_placement(config)
        (config.folder / "config.yaml").write_text(config.to_yaml())
        return _Run(config, started).finish()
    finally:
        lock.close()
        if embedded:
            ray.shutdown()  # ends everything, reward services included
        else:
            stop_reward_services(config.key)


class _Run:
    """The state the driver keeps while a run goes."""

    def __init__(self, config: RunConfig, started: float) -> None:
        self.config, self.started = config, started
        self.store = store_of(config)
        adopt(config, self.store)
        newest = self.store.newest()
        self.done = newest.done
        self.progress = Progress(config.iterations, self.done, config.folder / "run.log")
        for problem in newest.problems:
            self.progress.stage(f"{problem}; {'using the one before' if newest.done else 'beginning anew'}")
        known = known_history(self.store, self.done)
        self.tracker = Trackers(config.folder, config.model_dump(mode="json"), config.trackers, self.done, known)
        self.said = SaidOnce()

    def finish(self) -> dict[str, Any]:
        config, progress = self.config, self.progress
        progress.stage(f"run {config.name}: {config.model.path}, rewards {', '.join(config.scorer_names)}")
        progress.stage(f"folder {config.folder}")
        held_out = [RewardConfig(scorer=name) for name in config.evaluation.scorers]
        rewards, placement = [*config.rewards, *held_out], config.placement
        start_reward_services(config.key, rewards, placement.scorer, config.service, placement.cpu_threads)
        with closing(progress), self.tracker:
            if isinstance(config.pairs, DatasetPairs) and config.pairs.cache is not None:
                self._fill_cache()
            before = self._before_images()
            self._call_out(callouts.of_pictures(before))
            try:
                restarts = self._train(before) if self._more_to_train() else 0
            except RunStopped as stop:
                self._report_what_there_is(before, stop)
                raise
            return self._after(before, restarts)

    def _fill_cache(self) -> None:
        """In a task of its own, as `_draw`."""
        self.progress.stage("encoding the preference set to latents; what is in pairs.cache already stays")
        filling = ray.remote(num_cpus=0)(fill_cache).remote(self.config)
        counts = ray.get(filling, timeout=self.config.stall_timeout_s)
        self.progress.stage("rows: " + ", ".join(f"{count} {status}" for status, count in sorted(counts.items())))

    def _before_images(self) -> ImageSet:
        """Drawn once; a resumed run reads them back."""
        folder = self.config.folder / "images" / "before"
        if (folder / "scores.json").exists():
            found = ImageSet.load(folder)
            scorers = {*self.config.scorer_names, *self.config.evaluation.scorers}
            if list(zip(found.prompts, found.seeds, strict=True)) == evaluation_rows(self.config) and scorers == set(
                found.scores
            ):
                return found
        self.progress.stage(f"drawing {len(evaluation_rows(self.config))} images before tuning")
        before = self._draw(None)
        before.save(folder)
        return before

    def _call_out(self, found: dict[str, str]) -> None:
        for sentence in self.said.fresh(found):
            self.progress.stage(f"warning: {sentence}")

    def _draw(self, policy: WeightArrays | None) -> ImageSet:
        """In a task of its own, which keeps Ray Data's messages out of this process's output."""
        drawing = ray.remote(num_cpus=0)(draw_image_set).remote(self.config, policy)
        return ray.get(drawing, timeout=self.config.stall_timeout_s)

    def _more_to_train(self) -> bool:
        back = rolled_back_to(read_history(self.config.folder))
        if back is not None and self.config.guard.on_collapse == "rollback":
            self.progress.stage(
                f"this run went back to policy version {back} and ended; set guard.on_collapse to warn to train on "
                f"from iteration {self.done}"
            )
            return False
        if self.done >= self.config.iterations:
            self.progress.stage(
                f"all {self.config.iterations} iterations are done; set --iterations higher to go on"
            )
            return False
        return True

    def _report_what_there_is(self, before: ImageSet, stop: RunStopped) -> None:
        """A run that stopped itself leaves its numbers so far, and why."""
        summary = summarise(self.config, before, None, time.monotonic() - self.started, 0, {})
        write_summary(self.config.folder, summary | {"stopped": str(stop)})
        self.progress.stage(f"report of what there is: {write_report(self.config.folder)}")

    def _train(self, before: ImageSet) -> int:
        """Runs Ray Train in a thread and follows the board; returns how often the workers were restarted."""
        config, board = self.config, start_board(self.config.rollout.max_lag)
        scores = first_statistics(config, before)
        verb = f"resuming after iteration {self.done}" if self.done else "training"
        pairs = config.rollout.tickets_per_iteration * config.pairs_per_ticket
        self.progress.stage(f"{verb}: {config.iterations - self.done} iterations of {pairs} pairs")
        training = InThread(lambda: make_trainer(config, board, scores).fit())
        watch = Watch(board, config.stall_timeout_s)
        last = self.done - 1
        while training.running() or not training.seen_end():
            for record in ray.get(board.records.remote(last, POLL_S)):
                last = record.iteration
                self.tracker.record(record)
                self.progress.iteration(record)
                self._call_out(callouts.of_iteration(record))
            for note in ray.get(board.take_notes.remote()):
                self.progress.stage(f"note: {note}")
            now = watch.look(last)
            self.progress.drawing(now.tickets_done, config.rollout.tickets_per_iteration, now.waiting)
        status = ray.get(board.status.remote())
        if training.error is not None:
            raise RunStopped(status.fatal or f"training failed: {training.error}") from training.error
        return ray.get(board.restarts.remote())

    def _after(self, before: ImageSet, restarts: int) -> dict[str, Any]:
        config, folder = self.config, self.config.folder
        done = self.store.newest().done
        if not done:
            raise RunStopped(f"no checkpoint in {self.store.place.name}: the train workers must see the same folder")
        history = read_history(folder)
        back = rolled_back_to(history)
        policy = self.store.policy(done) if back is None else load_good(folder, back)
        family = find_family(config.model.path, config.model.family)
        saved = self._save_weights(family, done if back is None else back, policy)
        self.progress.stage(f"drawing {len(before)} images after tuning")
        after = self._draw(policy)
        after.save(folder / "images" / "after")
        grid = before_after_grid(before, after, 12)
        grid.save(folder / "images" / "before_after.png")
        self.tracker.image("images/before_after", grid, config.iterations)
        texts = text_encodings(config.key)
        summary = summarise(config, before, after, time.monotonic() - self.started, restarts, texts)
        write_summary(folder, summary)
        report = write_report(folder)
        self.progress.stage("\n" + before_after_table(summary["reward"]) + "\n")
        for line in what_went_wrong(summary, history):
            self.progress.stage(line)
        for path in saved:
            self.progress.stage(f"weights {path}")
        self.progress.stage(f"images  {folder / 'images' / 'before_after.png'}")
        self.progress.stage(f"report  {report}")
        return summary


    def _save_weights(self, family: Family, done: int, policy: WeightArrays) -> list[Path]:
        """The newest policy's, and in `best/` those of the best held-out measurement, if these are others."""
        config, folder = self.config, self.config.folder
        shutil.rmtree(folder / BEST_FOLDER, ignore_errors=True)  # of an earlier end of this run
        if family.name == "stub":
            return []  # no model that anybody could load
        saved, best = [save_policy(folder, config, family, policy)], self.store.best()
        if best not in (None, done):
            saved.append(save_policy(folder / BEST_FOLDER, config, family, self.store.policy(best)))  # type: ignore[arg-type]
        return saved


def first_statistics(config: RunConfig, before: ImageSet) -> dict[str, Moments]:
    """Of the guiding scorers on the pictures before tuning: what version 0 standardises by.

    Raises RunStopped if a standardised scorer scored fewer than two of them.
    """
    found = {name: moments_of(before.scores[name]) for name in config.scorer_names}
    for name in config.standardised:
        if found[name].count < 2:
            raise RunStopped(
                f"{name} scored {found[name].count:.0f} of {len(before)} pictures before tuning, and with scale = "
                f"standardised it needs two; see its errors above, or set its scale to raw"
            )
    return found


def make_trainer(config: RunConfig, board: Any, scores: ByScorer = NO_SCORES) -> TorchTrainer:
    """Ray Train with the pair stream as its dataset. `scores`: statistics that a run without checkpoint begins with."""
    workers = config.placement.train
    return TorchTrainer(
        train_loop,
        train_loop_config={"config": config, "board": board, "scores": dict(scores)},
        scaling_config=ScalingConfig(
            num_workers=workers.num,
            use_gpu=workers.gpus > 0,
            resources_per_worker={"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {}),
        ),
        # A fresh name: resuming is from our own checkpoints, which board, dataset and workers all read alike.
        run_config=TrainRunConfig(
            name=f"train-{time.time_ns()}",
            storage_path=str((config.folder / "ray").resolve()),
            failure_config=FailureConfig(max_failures=config.max_failures),
        ),
        datasets={"pairs": pair_dataset_factory(config, board)},
        # Locality would hold blocks back to place them better: an iteration's last ticket, which everybody waits for.
        dataset_config=DataConfig(execution_options=ExecutionOptions(preserve_order=True), enable_shard_locality=False),
    )
