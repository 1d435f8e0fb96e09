"""Before/after images: the same prompts and seeds, drawn by a pool of actors and scored by the reward services."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from rayalign.config import RunConfig
from rayalign.evaluation.image_set import INDEX, ImageSet
from rayalign.models.load import load_model
from rayalign.models.weight_sets import WeightArrays
from rayalign.pipeline.data_pass import in_pool, set_up_data
from rayalign.pipeline.devices import prepare_actor
from rayalign.pipeline.scoring.service import RewardClient
from rayalign.prompts import load_prompts
from rayalign.sampling.images import as_stored, draw_images

# Seeds of the comparison are plain small numbers, so that anybody can repeat a picture; those of rollouts are 63-bit.
FIRST_SEED = 1000

Columns = dict[str, np.ndarray]


def evaluation_rows(config: RunConfig) -> list[tuple[str, int]]:
    """(prompt, seed) of every image, prompt by prompt."""
    prompts = load_prompts(config.prompts, "prompts.heldout")[: config.evaluation.num_prompts]
    seeds = range(FIRST_SEED, FIRST_SEED + config.evaluation.seeds_per_prompt)
    return [(prompt, seed) for prompt in prompts for seed in seeds]


def stored_image_set(folder: Path, config: RunConfig) -> ImageSet | None:
    """The set in `folder`, if it is whole and of this run's rows and scorers."""
    if not (folder / INDEX).exists():
        return None
    found = ImageSet.load(folder)
    same = list(zip(found.prompts, found.seeds, strict=True)) == evaluation_rows(config)
    return found if same and set(found.scores) == set(config.all_scorers) else None


def draw_images_of(config: RunConfig, policy: WeightArrays | None) -> Iterator[Columns]:
    """The comparison's images, from `policy` or (None) the untuned model, scored by every scorer, as they get done:
    row, prompt, seed (B,), image uint8 (B, H, W, 3), a column a scorer.
    """
    rows = evaluation_rows(config)
    size = config.evaluation.batch
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    blocks = [
        pa.table({"row": list(range(i * size, i * size + len(batch))), "prompt": prompts, "seed": seeds})
        for i, batch in enumerate(batches)
        for prompts, seeds in [tuple(map(list, zip(*batch, strict=True)))]
    ]
    set_up_data()
    arguments = config, ray.put(policy) if policy is not None else None
    drawn = in_pool(ray.data.from_blocks(blocks), ImageActor, arguments, config.placement.rollout, at_once=2)
    yield from drawn.iter_batches(batch_size=None, batch_format="numpy")


def image_set(config: RunConfig, pieces: Iterable[Columns]) -> ImageSet:
    """All that `draw_images_of` yields, in the order of `evaluation_rows`."""
    found = list(pieces)
    columns = {name: np.concatenate([piece[name] for piece in found]) for name in found[0]}
    order = np.argsort(columns["row"])
    return ImageSet(
        prompts=[str(prompt) for prompt in columns["prompt"][order]],
        seeds=columns["seed"][order].tolist(),
        images=columns["image"][order],
        scores={name: columns[f"score/{name}"][order].astype(np.float32) for name in config.all_scorers},
    )


class ImageActor:
    """Placed by Ray Data with the rollout pool's resources."""

    def __init__(self, config: RunConfig, policy: Any) -> None:
        self._model = load_model(config, prepare_actor(config))
        if policy is not None:
            self._model.weights.load("policy", ray.get(policy))
        self._weights = "initial" if policy is None else "policy"
        self._score = RewardClient(config.key, config.rewards, config.service, config.heldout_names)

    async def __call__(self, batch: pa.Table) -> AsyncIterator[pa.Table]:
        prompts, seeds = batch["prompt"].to_pylist(), batch["seed"].to_pylist()
        pixels, stored = as_stored(draw_images(self._model, prompts, seeds, self._weights))  # type: ignore[arg-type]
        scores = await self._score(stored, prompts)
        table = batch.append_column("image", pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(pixels)))
        for name, part in scores.parts.items():
            table = table.append_column(f"score/{name}", pa.array(part, type=pa.float32()))
        yield table
