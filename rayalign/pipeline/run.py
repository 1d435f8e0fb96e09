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
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import ray

from rayalign.config import DatasetPairs, RunConfig
from rayalign.errors import RunStopped
from rayalign.evaluation import callouts
from rayalign.evaluation.callouts import SaidOnce
from rayalign.evaluation.comparison import before_after_table
from rayalign.evaluation.grids import before_after_grid
from rayalign.evaluation.history import read_history, wall_seconds
from rayalign.evaluation.image_set import ImageSet
from rayalign.evaluation.report import write_report
from rayalign.evaluation.trackers import Trackers
from rayalign.evaluation.wrong import rolled_back_to, what_went_wrong
from rayalign.learning.good_policy import load_good
from rayalign.models.export import save_policy
from rayalign.models.families import find_family
from rayalign.models.family import Family
from rayalign.models.weight_sets import WeightArrays
from rayalign.pipeline.board import answer, start_board
from rayalign.pipeline.cluster import check_placement, connect, log_folder
from rayalign.pipeline.draw import draw_images_of, evaluation_rows, image_set, stored_image_set
from rayalign.pipeline.encode import fill_cache
from rayalign.pipeline.failures import Failures, abandon
from rayalign.pipeline.output_check import check_output, claim
from rayalign.pipeline.resume import adopt, check_resume, known_history, store_of
from rayalign.pipeline.scoring.service import start_reward_services, stop_reward_services
from rayalign.pipeline.scoring.text_store import text_encodings
from rayalign.pipeline.signals import interruptible
from rayalign.pipeline.streamed import streamed
from rayalign.pipeline.summary import read_summary, summarise, write_summary
from rayalign.pipeline.training import first_statistics, make_trainer
from rayalign.pipeline.validate import check_inputs, with_absolute_paths
from rayalign.pipeline.watch import InThread, Watch
from rayalign.progress import Progress
from rayalign.records import IterationRecord
from rayalign.redaction import redacted
from rayalign.rewards.statistics import ByScorer
from rayalign.whole_files import write_whole

POLL_S = 1.0
BEST_FOLDER = "best"


def run(config: RunConfig) -> dict[str, Any]:
    """Runs, or resumes, to the end; returns what summary.json holds.

    Raises ConfigError before any actor starts if a setting is wrong; RunStopped if the run stopped itself; Interrupted
    on SIGTERM or Ctrl-C, once everything is down.
    """
    started = time.monotonic()
    config = with_absolute_paths(config)
    notes = check_inputs(config)
    check_resume(config)
    check_output(config)
    with closing(claim(config)):
        for note in notes:
            print(note, flush=True)
        embedded = connect(config.all_scorers)
        with interruptible():
            return _run_connected(config, started, embedded)


def _run_connected(config: RunConfig, started: float, embedded: bool) -> dict[str, Any]:
    try:
        check_placement(config)
        write_whole(config.folder / "config.yaml", config.to_yaml())
        return _Run(config, started).finish()
    finally:
        if embedded:
            ray.shutdown()  # ends everything, reward services included
        else:
            stop_reward_services(config.key)


class _Run:
    """The state the driver keeps while a run goes."""

    def __init__(self, config: RunConfig, started: float) -> None:
        self.config, self.started = config, started
        self.began = time.time() - (time.monotonic() - started)  # a clock that the train workers have too
        self.store = store_of(config)
        adopt(config, self.store)
        newest = self.store.newest()
        self.begun_after = self.done = newest.done
        known = known_history(self.store, self.done)
        start_reward = known[0].metrics["reward"] if known else None
        self.progress = Progress(config.iterations, self.done, config.folder / "run.log", start_reward)
        for problem in newest.problems:
            self.progress.stage(f"{problem}; {'using the one before' if newest.done else 'beginning anew'}")
        self.tracker = Trackers(config.folder, config.model_dump(mode="json"), config.trackers, self.done, known)
        self.said = SaidOnce()

    def finish(self) -> dict[str, Any]:
        config, progress = self.config, self.progress
        progress.stage(f"run {config.name}: {config.model.path}, rewards {', '.join(config.scorer_names)}")
        progress.stage(f"folder {config.folder}")
        progress.stage(f"logs of Ray and its actors {log_folder()}")
        rewards, placement = config.all_rewards, config.placement
        with closing(progress), self.tracker, self._says_where_it_stopped():
            start_reward_services(config.key, rewards, placement.scorer, config.service, placement.cpu_threads)
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

    @contextmanager
    def _says_where_it_stopped(self) -> Iterator[None]:
        """At once, before anything is taken down: `ray job stop` kills three seconds after its SIGTERM."""
        try:
            yield
        except KeyboardInterrupt:
            where = f"stopped after iteration {self.done} of {self.config.iterations}"
            self.progress.stage(f"{where}; the same command continues from there")
            raise
        except Exception as error:  # is said on the screen by whoever catches it
            self.progress.note(f"error: {redacted(str(error))}")
            raise

    def _fill_cache(self) -> None:
        self.progress.stage("encoding the preference set to latents; what is in pairs.cache already stays")
        *_, counts = streamed("encoding pairs.cache", self.config.stall_timeout_s, fill_cache, self.config)
        self.progress.stage("rows: " + ", ".join(f"{count} {status}" for status, count in sorted(counts.items())))

    def _before_images(self) -> ImageSet:
        """Drawn once; a resumed run reads them back."""
        folder = self.config.folder / "images" / "before"
        if (found := stored_image_set(folder, self.config)) is not None:
            return found
        self.progress.stage(f"drawing {len(evaluation_rows(self.config))} images before tuning")
        before = self._draw(None)
        before.save(folder)
        return before

    def _call_out(self, found: dict[str, str]) -> None:
        for sentence in self.said.fresh(found):
            self.progress.stage(f"warning: {sentence}")

    def _draw(self, policy: WeightArrays | None) -> ImageSet:
        what = f"drawing the pictures {'before' if policy is None else 'after'} tuning"
        pieces = streamed(what, self.config.stall_timeout_s, draw_images_of, self.config, policy)
        return image_set(self.config, pieces)

    def _more_to_train(self) -> bool:
        back = self._went_back()
        if back is not None:
            self.progress.stage(
                f"this run went back to policy version {back} and ended; set guard.on_collapse to warn to train on "
                f"from iteration {self.done}"
            )
            return False
        if self.done >= self.config.iterations:
            self.progress.stage(f"all {self.config.iterations} iterations are done; set --iterations higher to go on")
            return False
        return True

    def _ended(self) -> bool:
        return self.done >= self.config.iterations or self._went_back() is not None

    def _went_back(self) -> int | None:
        """The policy version that a collapse sent the run back to, which ends it."""
        wanted = self.config.guard.on_collapse == "rollback"
        return rolled_back_to(read_history(self.config.folder)) if wanted else None

    def _report_what_there_is(self, before: ImageSet, stop: RunStopped) -> None:
        """A run that stopped itself leaves its numbers so far, and why."""
        summary = summarise(self.config, before, None, self._wall_s(), 0, {})
        write_summary(self.config.folder, summary | {"stopped": str(stop)})
        self.progress.stage(f"report of what there is: {write_report(self.config.folder)}")

    def _train(self, before: ImageSet) -> int:
        """Runs Ray Train until all iterations are done; returns how often the workers were restarted."""
        config, board = self.config, start_board(self.config.rollout.max_lag)
        scores = first_statistics(config, before)
        verb = f"resuming after iteration {self.done}" if self.done else "training"
        pairs = config.rollout.tickets_per_iteration * config.pairs_per_ticket
        self.progress.stage(f"{verb}: {config.iterations - self.done} iterations of {pairs} pairs")
        watch = Watch(board, config.stall_timeout_s)
        failures = Failures(config.max_failures)
        try:
            while not self._ended():
                self._attempt(board, scores, watch, failures)
        finally:
            ray.kill(board)
        return watch.restarts

    def _attempt(self, board: Any, scores: ByScorer, watch: Watch, failures: Failures) -> None:
        """Ray Train once. It ends early when a worker, its node or its controller died, or a node is about to go."""
        training = InThread(lambda: make_trainer(self.config, board, scores, self.began).fit())
        try:
            self._follow(training, board, watch)
        except RunStopped as stop:
            abandon(board, training, str(stop))
            raise
        for record in self._untold():
            self._record(record)
        if training.error is not None or not self._ended():
            reason = failures.add(training.error, self.done, watch.status().fatal)
            self.progress.stage(f"note: {reason}; going on after iteration {self.done}")

    def _follow(self, training: InThread, board: Any, watch: Watch) -> None:
        """Shows and stores what the board says until training has ended."""
        timeout_s = self.config.stall_timeout_s
        while training.running() or not training.seen_end():
            for record in answer(board.records.remote(self.done - 1, POLL_S), timeout_s, "the driver"):
                self._record(record)
            for note in answer(board.take_notes.remote(), timeout_s, "the driver"):
                self.progress.stage(f"note: {note}")
            now = watch.look(self.done)
            self.progress.drawing(now.tickets_done, self.config.rollout.tickets_per_iteration, now.waiting)

    def _untold(self) -> list[IterationRecord]:
        """Iterations that nobody told of: board or workers died once their checkpoint was written."""
        known = known_history(self.store, self.store.newest().done)
        return [record for record in known if record.iteration >= self.done]

    def _record(self, record: IterationRecord) -> None:
        self.done = record.number
        self.tracker.record(record)
        self.progress.iteration(record)
        self._call_out(callouts.of_iteration(record))

    def _after(self, before: ImageSet, restarts: int) -> dict[str, Any]:
        config, folder = self.config, self.config.folder
        done = self.store.newest().done
        if not done:
            raise RunStopped(f"no checkpoint in {self.store.place.name}: the train workers must see the same folder")
        history = read_history(folder)
        back = rolled_back_to(history)
        policy = self.store.policy(done) if back is None else load_good(self.store.place, back)
        family = find_family(config.model.path, config.model.family)
        saved = self._save_weights(family, done if back is None else back, policy)
        self.progress.stage(f"drawing {len(before)} images after tuning")
        after = self._draw(policy)
        after.save(folder / "images" / "after")
        grid = before_after_grid(before, after, 12)
        grid.save(folder / "images" / "before_after.png")
        self.tracker.image("images/before_after", grid, config.iterations)
        texts = text_encodings(config.key)
        summary = summarise(config, before, after, self._wall_s(), restarts, texts)
        write_summary(folder, summary)
        report = write_report(folder)
        self.progress.stage("\n" + before_after_table(summary["reward"]) + "\n")
        for line in what_went_wrong(summary, history):
            self.progress.stage(f"warning: {line} (docs/guards.md)")
        for path in saved:
            self.progress.stage(f"weights {path}")
        self.progress.stage(f"images  {folder / 'images' / 'before_after.png'}")
        self.progress.stage(f"report  {report}")
        return summary

    def _wall_s(self) -> float:
        """Of the whole run by the clock: this attempt, and those before it, which may have been killed."""
        earlier = read_history(self.config.folder)[: self.begun_after]
        return time.monotonic() - self.started + (wall_seconds(read_summary(self.config.folder), earlier) or 0.0)

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
