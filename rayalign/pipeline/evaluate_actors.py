"""The pool of an evaluation: batches of prompts and seeds in, scored pictures out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pyarrow as pa
import ray

from rayalign.config.evaluate import BASE, EvaluateConfig
from rayalign.evaluation.part_files import part_table
from rayalign.models.load import load_model
from rayalign.models.tuned import load_tuned
from rayalign.pipeline.data_pass import in_pool, set_up_data
from rayalign.pipeline.devices import prepare_device
from rayalign.pipeline.scoring.service import RewardClient
from rayalign.sampling.images import as_stored, draw_images


def drawn(config: EvaluateConfig, label: str, blocks: list[pa.Table]) -> Iterator[pa.Table]:
    """One pass of Ray Data over a model's batches, each as it gets done."""
    if not blocks:
        return
    set_up_data()
    tables = in_pool(ray.data.from_blocks(blocks), EvaluationActor, (config, label), config.pool, at_once=2)
    yield from tables.iter_batches(batch_size=None, batch_format="pyarrow")


class EvaluationActor:
    """Placed by Ray Data; holds one of the models."""

    def __init__(self, config: EvaluateConfig, label: str) -> None:
        device = prepare_device(config.cpu_threads)
        run = config.drawn_by(config.base.path)
        if label == BASE:
            self._model = load_model(run, device)
        else:
            self._model = load_tuned(run, config.models[label], device, f"models.{label}")
        heldout = [one.scorer for one in config.heldout]
        self._score = RewardClient(config.key, config.rewards, config.service, heldout)

    async def __call__(self, batch: pa.Table) -> AsyncIterator[pa.Table]:
        prompts, seeds = batch["prompt"].to_pylist(), batch["seed"].to_pylist()
        pixels, stored = as_stored(draw_images(self._model, prompts, seeds, "initial"))
        scores = await self._score(stored, prompts)
        table = part_table(batch["row"].to_pylist(), prompts, seeds, pixels)
        for name, part in scores.parts.items():
            table = table.append_column(name, pa.array(part, pa.float32(), from_pandas=True))  # NaN: null
        yield table.append_column("part", batch["part"])
