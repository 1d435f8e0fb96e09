"""The base model's pictures and their restyled twins: drawn by one pool, streamed into a preference set.

    rows -> pool of StyleActors (draw, restyle) -+-> training: pairs.parquet, a group of rows in memory at a time
                                                 '-> held out: two ImageSets, scored by the reward services

One pool does both, since image-to-image needs the very weights that draw.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import ray
from PIL import Image

from rayalign.config import LoraConfig
from rayalign.config.style import DrawnStyle, FolderStyle, ImageToImageStyle, StyleConfig
from rayalign.data.images import encode
from rayalign.data.preferences import PreferenceRow
from rayalign.data.source import write_pairs
from rayalign.data.style import stylise
from rayalign.data.style_pictures import FolderPictures, PictureRow
from rayalign.errors import RunStopped
from rayalign.evaluation.image_set import ImageSet, slug
from rayalign.models.load import load_model
from rayalign.models.merged_lora import load_with_lora
from rayalign.models.stylise import ImageToImage
from rayalign.models.text_to_image import TextToImage
from rayalign.pipeline.data_pass import in_pool, set_up_data
from rayalign.pipeline.devices import prepare_actor
from rayalign.pipeline.scoring.service import RewardClient
from rayalign.records import KEPT, TIE
from rayalign.sampling.images import as_stored, draw_images

Restyle = Callable[[np.ndarray, list[PictureRow]], np.ndarray]  # uint8 (B, H, W, 3) and their rows -> the same


class Picture(NamedTuple):
    """A row as it was drawn; images are uint8 (H, W, 3)."""

    row: PictureRow
    base: np.ndarray
    restyled: np.ndarray


def drawing(config: StyleConfig) -> StyleConfig:
    """The settings that the base is drawn with, where a method tunes it whole too: no copies of its weights."""
    return config.model_copy(update={"model": config.model.model_copy(update={"tuning": LoraConfig()})})


def draw_pictures(config: StyleConfig, rows: list[PictureRow]) -> Iterator[Picture]:
    """In the order of `rows`, by the rollout pool's number of actors."""
    set_up_data(in_order=True)
    size = config.evaluation.batch
    batches = [rows[start : start + size] for start in range(0, len(rows), size)]
    drawn = ray.data.from_blocks([pa.Table.from_pylist([row._asdict() for row in batch]) for batch in batches])
    restyled = in_pool(drawn, StyleActor, (config,), config.placement.rollout)
    for table in restyled.iter_batches(batch_size=None, batch_format="pyarrow"):
        sides = (table[name].combine_chunks().to_numpy_ndarray() for name in ("base", "restyled"))
        for row, *images in zip(table.select(PictureRow._fields).to_pylist(), *sides, strict=True):
            yield Picture(PictureRow(**row), *images)


class StyleActor:
    """Placed by Ray Data with the rollout pool's resources; holds the base model, and a LoRA's beside it."""

    def __init__(self, config: StyleConfig) -> None:
        config = drawing(config)
        device = prepare_actor(config)
        self._model = load_model(config, device)
        self._restyle = _restyler(config, self._model, device)

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = [PictureRow(**row) for row in table.to_pylist()]
        base = _draw(self._model, [row.prompt for row in rows], rows)
        for name, images in (("base", base), ("restyled", self._restyle(base, rows))):
            column = pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(images))
            table = table.append_column(name, column)
        return table


def _restyler(config: StyleConfig, model: TextToImage, device: str) -> Restyle:
    style = config.style
    if isinstance(style, DrawnStyle):
        return lambda images, rows: stylise(images, style.name)
    if isinstance(style, FolderStyle):
        if style.export:
            return lambda images, rows: images
        pictures = FolderPictures(style.path)
        return lambda images, rows: pictures.read(rows, model.resolution)
    if isinstance(style, ImageToImageStyle):
        pipeline = ImageToImage(model, style, config.sampler.num_steps)
        return lambda images, rows: pipeline(images, [row.prompt for row in rows], [row.seed for row in rows])
    styled = load_with_lora(config, style.path, device, style.scale)
    return lambda images, rows: _draw(styled, [row.prompt + style.suffix for row in rows], rows)


def _draw(model: TextToImage, prompts: list[str], rows: list[PictureRow]) -> np.ndarray:
    return as_stored(draw_images(model, prompts, [row.seed for row in rows], "initial"))[0]


def make_pictures(
    config: StyleConfig, training: list[PictureRow], heldout: list[PictureRow]
) -> tuple[ImageSet, ImageSet] | None:
    """Writes the pairs of `training` where there are any; (base's, restyled) pictures of `heldout` where there are any.

    Raises RunStopped if the style changes no picture of `training`.
    """
    pictures = draw_pictures(config, [*training, *heldout])
    if training:
        write_pairs(config.pairs.path, _pairs(islice(pictures, len(training))))
    rest = list(pictures)
    if not heldout:
        return None
    sides = (np.stack([picture.base for picture in rest]), np.stack([picture.restyled for picture in rest]))
    prompts, seeds = [row.prompt for row in heldout], [row.seed for row in heldout]
    base, target = (asyncio.run(_scored(config, ImageSet(prompts, seeds, images))) for images in sides)
    return base, target


def export_pictures(config: StyleConfig, rows: list[PictureRow], folder: Path) -> None:
    """The base's pictures as files that `FolderPictures` would find by their numbers."""
    for row, image, _ in draw_pictures(config, rows):
        (folder / row.part).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / row.part / f"{row.number:06d}-{slug(row.prompt)}.png")


def _pairs(pictures: Iterator[Picture]) -> Iterator[PreferenceRow]:
    """The restyled picture wins over the base's. Where it is the same picture there is no preference."""
    num_kept = 0
    for row, base, restyled in pictures:
        changed = not np.array_equal(base, restyled)
        num_kept += changed
        yield PreferenceRow(row.prompt, encode(restyled), encode(base), KEPT if changed else TIE)
    if not num_kept:
        # Raised before the set stands under its name: a run over it would train on nothing.
        raise RunStopped("the style changes no picture of the base model's; set another, or a stronger one")


async def _scored(config: StyleConfig, images: ImageSet) -> ImageSet:
    client = RewardClient(config.key, config.rewards, config.service, config.heldout_names)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in config.all_scorers}
    for start in range(0, len(images), config.evaluation.batch):
        rows = slice(start, start + config.evaluation.batch)
        pixels = images.images[rows].transpose(0, 3, 1, 2).astype(np.float32) / 255
        scores = await client(pixels, images.prompts[rows])
        for name, part in scores.parts.items():
            parts[name].append(part)
    client.close()
    whole = {name: np.concatenate(part).astype(np.float32) for name, part in parts.items()}
    return ImageSet(images.prompts, images.seeds, images.images, whole)
