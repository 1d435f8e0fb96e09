"""Held-out measurement while a run trains: a small fixed set of prompts and seeds, drawn with the policy as it is now.

Train worker 0 does it, right after it has published: the rollout pool already draws the next iteration meanwhile, and
no second model takes memory. The noise comes from the pictures' own seeds and nothing else is drawn at random, so a
run learns the same bits with and without it.
"""

from __future__ import annotations

import asyncio
import json
import time

import numpy as np

from rayalign.config import RunConfig
from rayalign.evaluation.drift import statistics
from rayalign.evaluation.image_set import ImageSet
from rayalign.models.text_to_image import TextToImage
from rayalign.prompts import load_prompts
from rayalign.records import HeldOut, Scores, derive_seed
from rayalign.rewards.protocol import ScoreFn
from rayalign.sampling.images import as_stored, draw_images

# Not the seeds of the before/after pictures: a checkpoint is chosen by these, and must not be by those.
FIRST_PROBE_SEED = 5000


def probe_rows(config: RunConfig) -> list[tuple[str, int]]:
    """(prompt, seed) of every picture, prompt by prompt."""
    prompts = load_prompts(config.prompts, "prompts.heldout")[: config.evaluation.probe_prompts]
    seeds = range(FIRST_PROBE_SEED, FIRST_PROBE_SEED + config.evaluation.probe_seeds)
    return [(prompt, seed) for prompt in prompts for seed in seeds]


class Probe:
    """Draws and scores the same pictures again and again.

    Args:
        model: whose policy is measured. Its counts of calls are left as they were.
        score: answers with guiding and held-out scorers.

    Attributes:
        by: what checkpoints compare by; another one where prompts, seeds, or the scorer and its options are others.
    """

    def __init__(self, config: RunConfig, model: TextToImage, score: ScoreFn) -> None:
        self._config, self._model, self._score = config, model, score
        self._rows = probe_rows(config) if config.evaluation.every else []
        self.by = f"{config.best_by}-{derive_seed('probe', *map(str, self._rows), *_options(config)):x}"

    def due(self, version: int) -> bool:
        """Whether policy version `version` is measured: every `evaluation.every`th, the untuned one included."""
        every = self._config.evaluation.every
        return every > 0 and version % every == 0

    def measure(self, version: int) -> HeldOut:
        """Of the policy that the model holds. A score that failed stands in no mean and is counted."""
        started = time.perf_counter()
        calls = self._model.calls.copy()  # these are no pair's
        images, found = asyncio.run(self._draw_and_score())
        self._model.calls = calls
        measured = statistics(images)
        of_images = {name: _mean(values) for name, (values, _) in measured.items()}
        parts = {name: np.concatenate([scores.parts[name] for scores in found]) for name in found[0].parts}
        total = np.concatenate([scores.total_B for scores in found])
        columns = {"heldout/reward": (total, images.prompts)}
        columns |= {f"heldout/{name}": (values, images.prompts) for name, values in parts.items()}
        columns |= {f"image/{name}": column for name, column in measured.items()}
        prompts = list(dict.fromkeys(images.prompts))
        return HeldOut(
            version=version,
            reward=_mean(total),
            scores={name: _mean(values) for name, values in parts.items()},
            statistics=of_images,
            num_images=len(images),
            num_failed=sum(int((~np.isfinite(values)).sum()) for values in parts.values()),
            seconds=time.perf_counter() - started,
            by_prompt={name: _by_prompt(*column, prompts) for name, column in columns.items()},
        )

    async def _draw_and_score(self) -> tuple[ImageSet, list[Scores]]:
        size, pixels, found = self._config.evaluation.batch, [], []
        for start in range(0, len(self._rows), size):
            prompts, seeds = map(list, zip(*self._rows[start : start + size], strict=True))
            stored, images_BCHW = as_stored(draw_images(self._model, prompts, seeds))
            pixels.append(stored)
            found.append(await self._score(images_BCHW, prompts))
        prompts, seeds = map(list, zip(*self._rows, strict=True))
        return ImageSet(prompts, seeds, np.concatenate(pixels)), found


def _options(config: RunConfig) -> list[str]:
    """Those of the held-out scorer that tells the best; a guiding one's are the same as long as a run goes on."""
    named = [reward.options for reward in config.evaluation.scorers if reward.scorer == config.best_by]
    return [json.dumps(options, sort_keys=True) for options in named if options]


def _by_prompt(values: np.ndarray, prompt_of: list[str], prompts: list[str]) -> list[float]:
    """The mean of each prompt's finite values, in the order of `prompts`."""
    owner = np.array(prompt_of, dtype=object)
    return [_mean(np.asarray(values)[owner == prompt]) for prompt in prompts]


def _mean(values: np.ndarray) -> float:
    """Of what is finite; NaN of nothing."""
    usable = values[np.isfinite(values)].astype(np.float64)
    return float(usable.mean()) if len(usable) else float("nan")
