"""Scoring pictures that exist, by one pass of Ray Data:

    parts that are missing -> read tasks -> pool of scorer 1 -> pool of scorer 2 -> ... -> driver: a file a part
    (a row group, or so        (decode)      (ScoreActor, in its own environment)          (whole or not at all)
     many files)

read       consumes parts; produces tables of pixels                                   (score_actors.py)
scorers    consume those; add a column each                                            (score_actors.py)
driver     gathers the rows of a part and writes it once they are all there            (data/score_files.py)

Killed and started again, the pass goes on with the parts that are not there.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from rayalign.config import RewardConfig
from rayalign.config.score import ScoreConfig
from rayalign.data.picture import PartReader, PictureSet
from rayalign.data.pictures import open_pictures
from rayalign.data.score_files import SCORES, SUMMARY, ScoreFiles
from rayalign.errors import ConfigError, RayalignError, RunStopped
from rayalign.evaluation.formatting import duration
from rayalign.evaluation.score_table import score_text, summarise_scores, unscored_text
from rayalign.pipeline.cluster import connect
from rayalign.pipeline.data_pass import in_pool, set_up_data
from rayalign.pipeline.score_actors import ScoreActor, read_part
from rayalign.pipeline.scoring.service import runtime_env_for
from rayalign.pipeline.signals import interruptible
from rayalign.rewards.table import absolute_options, check_scorer, scorer_facts, scorer_stamp
from rayalign.whole_files import write_whole

READ_CPUS = 0.5  # of a task that reads and decodes
SAY_EVERY_S = 5.0


def score_images(config: ScoreConfig) -> dict[str, Any]:
    """Scores, or goes on scoring, to the end; returns what summary.json holds.

    Raises:
        ConfigError: before any actor starts: a wrong setting, nothing to score, or an output of other settings.
        RunStopped: a scorer could not start, or nothing got done for `stall_timeout_s`.
        Interrupted: on SIGTERM or Ctrl-C, once everything is down.
    """
    rewards = [one.reward() for one in config.scorers]
    for reward in rewards:
        check_scorer(reward.scorer, reward.options)
    folder = Path(config.output).expanduser().resolve()
    if folder.is_relative_to(Path(config.images).expanduser().resolve()):
        raise ConfigError("output", config.output, "lies inside of images; set a folder beside it")
    pictures = open_pictures(config)
    _check_prompts(config, pictures)
    files = ScoreFiles(folder, pictures.part_rows, config.names)
    stamps = {reward.scorer: scorer_stamp(reward) for reward in rewards}
    files.begin(config.decides_scores() | {"stamps": stamps}, pictures.sources)
    total, missing = sum(pictures.part_rows), files.missing()
    where = f"prompts: {pictures.prompts_from}" if pictures.prompts_from else "no prompts"
    _say(f"{total} images of {config.images} ({where}), by {', '.join(config.names)}")
    if missing:
        todo = sum(pictures.part_rows[part] for part in missing)
        if todo < total:
            _say(f"{total - todo} are scored already; going on with {todo}")
        with interruptible():
            _score(config, rewards, pictures, files, missing)
    summary = summarise_scores(files.read(), config.names, [scorer_facts(name).unit for name in config.names])
    write_whole(folder / SUMMARY, json.dumps(summary, indent=1, ensure_ascii=False))
    _say(f"\n{score_text(summary)}\n")
    if told := unscored_text(summary):
        _say(f"{told}\n")
    _say(f"scores  {folder / SCORES}")
    return summary


def _check_prompts(config: ScoreConfig, pictures: PictureSet) -> None:
    without = [name for name in config.names if scorer_facts(name).needs_prompt]
    if without and not pictures.prompts_from:
        ways = "a cat.txt beside cat.png, a metadata.jsonl, a column of the parquet (prompt_column), or --prompt"
        raise ConfigError("images", config.images, f"has no prompts, which {without[0]} needs; give {ways}")


def _score(
    config: ScoreConfig, rewards: list[RewardConfig], pictures: PictureSet, files: ScoreFiles, missing: list[int]
) -> None:
    absolute = [
        reward.model_copy(update={"options": absolute_options(reward.scorer, reward.options)}) for reward in rewards
    ]
    embedded = connect(config.names)
    try:
        _check_room(config)
        # In a task of its own, which keeps Ray Data's messages out of this process's output.
        passing = ray.remote(num_cpus=0, num_returns="streaming")(_scored)
        parts = [pictures.parts[part].append_column("part", _number(part, pictures)) for part in missing]
        # Here: an environment that is made first says so to the user.
        environments = [runtime_env_for(reward) for reward in absolute]
        tables = passing.remote(config, list(zip(absolute, environments, strict=True)), pictures.reader, parts)
        _Gathering(pictures.part_rows, files, missing).take(map(ray.get, tables))
    except ray.exceptions.RayError as error:
        raise RunStopped(_told(error)) from error
    except KeyboardInterrupt:
        _say("stopped; the same command goes on from here")
        raise
    finally:
        if embedded:
            ray.shutdown()


def _check_room(config: ScoreConfig) -> None:
    """Raises ConfigError if the smallest pools do not fit: Ray Data would wait for room without a word."""
    total, pool = ray.cluster_resources(), config.pool
    for resource, each, rest in (("CPU", pool.cpus, READ_CPUS), ("GPU", pool.gpus, 0.0)):
        need, have = each * pool.min * len(config.scorers) + rest, total.get(resource, 0.0)
        if need > have:
            fix = f"{len(config.scorers)} scorers x pool.min need {need:g} {resource}s, and the cluster has {have:g}"
            raise ConfigError(f"pool.{resource.lower()}s", each, f"{fix}; lower it or pool.min, or score in turns")


def _scored(
    config: ScoreConfig, rewards: list[tuple[RewardConfig, dict]], reader: PartReader, parts: list[pa.Table]
) -> Iterator[pa.Table]:
    """Tables of scored rows, in the order of the parts."""
    set_up_data(in_order=True, stall_timeout_s=config.stall_timeout_s)
    rows = ray.data.from_blocks(parts).map_batches(
        read_part,
        fn_kwargs={"reader": reader, "resolution": config.resolution, "batch": config.batch},
        batch_format="pyarrow",
        batch_size=None,
        num_cpus=READ_CPUS,
    )
    for number, (reward, environment) in enumerate(rewards, 1):
        arguments = reward, config.batch, config.cpu_threads, number == len(rewards)
        rows = in_pool(rows, ScoreActor, arguments, config.pool, runtime_env=environment)
    yield from rows.iter_batches(batch_size=None, batch_format="pyarrow")


def _number(part: int, pictures: PictureSet) -> pa.Array:
    return pa.array([part] * pictures.parts[part].num_rows, pa.int32())


class _Gathering:
    """Rows come in tables of any length; a part is written once it is whole."""

    def __init__(self, part_rows: Sequence[int], files: ScoreFiles, missing: list[int]) -> None:
        self._part_rows, self._files, self._missing = part_rows, files, missing
        self._rows: dict[int, list[pa.Table]] = {}

    def take(self, tables: Iterable[pa.Table]) -> None:
        """Raises RayalignError if a part is not whole at the end."""
        todo, done, started = sum(self._part_rows[part] for part in self._missing), 0, time.monotonic()
        said = started
        for table in tables:
            for part in dict.fromkeys(table["part"].to_pylist()):
                self._add(part, table.filter(pc.equal(table["part"], part)))
            done += table.num_rows
            if (now := time.monotonic()) - said > SAY_EVERY_S and done < todo:
                said = now
                _say(f"scored {done} of {todo}, {done / (now - started):.3g} a second")
        if lost := self._files.missing():
            raise RayalignError(f"parts {lost} came back without all of their rows; start again to score them")
        _say(f"scored {done} in {duration(time.monotonic() - started)}")

    def _add(self, part: int, rows: pa.Table) -> None:
        found = self._rows.setdefault(part, [])
        found.append(rows)
        if sum(table.num_rows for table in found) < self._part_rows[part]:
            return
        whole = pa.concat_tables(self._rows.pop(part)).sort_by("place")
        reason = pa.array([text or None for text in whole["reason"].to_pylist()], pa.string())
        self._files.write(part, whole.set_column(whole.schema.get_field_index("reason"), "reason", reason))


def _told(error: Exception) -> str:
    """What lies under Ray's wrappings, from the text alone, as an actor's death has no cause: ours as it is."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    ours = re.findall(rf"^{re.escape(RayalignError.__module__)}\.\w+: (.+)$", text, re.MULTILINE)
    return ours[-1] if ours else f"scoring failed: {text.splitlines()[-1] if text else error!r}"


def _say(text: str) -> None:
    print(text, flush=True)
