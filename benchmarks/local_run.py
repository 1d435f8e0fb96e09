"""A run in one process, without Ray: the same sampler, pairs, objective and learner, for comparing methods on a toy."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from rayalign.config import DatasetPairs, RunConfig
from rayalign.data.latents import LatentSource
from rayalign.data.source import open_pairs
from rayalign.data.tickets import clean_table, ticket_rows
from rayalign.evaluation.image_set import ImageSet
from rayalign.learning.iteration_stats import IterationStats
from rayalign.learning.learner import Learner, make_accelerator
from rayalign.models.load import load_model
from rayalign.models.text_to_image import TextToImage
from rayalign.pipeline.annotate import AnnotateActor
from rayalign.pipeline.encode import make_encoder
from rayalign.prompts import load_prompts, ticket_prompts
from rayalign.records import IterationRecord, Ticket, derive_seed
from rayalign.rewards.local import LocalScoreFn
from rayalign.rewards.table import build_scorer
from rayalign.rewards.tally import ScoreTally
from rayalign.sampling.images import as_stored, draw_images
from rayalign.sampling.noise import SampleNoise
from rayalign.sampling.pair_table import pair_table
from rayalign.sampling.sources import draw_ticket, num_prompts

FIRST_SEED = 1000  # of the held-out pictures, as in a real run


@dataclass
class LocalRun:
    """One run's model, learner and history."""

    config: RunConfig
    history: list[IterationRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        config = self.config
        self.model: TextToImage = load_model(config, "cpu", ("policy", "reference"))
        self.learner = Learner(self.model, config, make_accelerator(config.train, "cpu"))
        if config.standardised:
            raise ValueError(f"{config.standardised}: a run in one process mixes raw scores only")
        scorers = {reward.scorer: (build_scorer(reward), reward.weight) for reward in config.rewards}
        self.score = LocalScoreFn(scorers)
        self.prompts = load_prompts(config.prompts)
        self._annotate = AnnotateActor(config) if config.objective.embeds_with is not None else None
        self._loop = asyncio.new_event_loop()
        if isinstance(config.pairs, DatasetPairs):
            self._index = open_pairs(config.pairs.path)
            self._rows = LatentSource(self._index, make_encoder(config), self.model.resolution, None)

    def train(self) -> list[IterationRecord]:
        """All iterations."""
        for iteration in range(len(self.history), self.config.iterations):
            self.history.append(self._iteration(iteration))
        return self.history

    def _iteration(self, iteration: int) -> IterationRecord:
        config = self.config
        count, steps = config.rollout.tickets_per_iteration, config.train.optimizer_steps
        stats = IterationStats(count, config.scorer_names)
        tables = self._tickets(iteration)
        for number, table in enumerate(tables):
            last = (number + 1) % (count // steps) == 0
            stats.add(table, iteration, iteration)
            self.learner.add_ticket(table, last, number)
            if last:
                self.learner.step()
        metrics, counts, seconds = self.learner.finish_iteration()
        return stats.record(iteration, metrics, counts, {"training": seconds})

    def _tickets(self, iteration: int) -> list[pa.Table]:
        """The iteration's tables, all drawn from the policy as it is now."""
        count = self.config.rollout.tickets_per_iteration
        tickets = [Ticket(iteration * count + slot, count) for slot in range(count)]
        if isinstance(self.config.pairs, DatasetPairs):
            tables = [self._read(ticket) for ticket in tickets]
        else:
            self.model.weights.fuse()
            tables = [self._draw(ticket) for ticket in tickets]
            self.model.weights.unfuse()
        self.model.calls.clear()
        return [self._annotate(table) for table in tables] if self._annotate else tables

    def _draw(self, ticket: Ticket) -> pa.Table:
        config, size = self.config, self.config.rollout.samples_per_ticket
        prompts = ticket_prompts(self.prompts, ticket, num_prompts(config.pairs, size), config.seed)
        seeds = [derive_seed(config.seed, "rollout", ticket.iteration, ticket.slot, sample) for sample in range(size)]
        noise = SampleNoise(seeds, self.model.latent_shape, self.model.device)
        tally = ScoreTally(self.score)
        drawing = draw_ticket(self.model, tally, prompts, noise, config.pairs, self._annotate is not None)
        drawn = self._loop.run_until_complete(drawing)
        return pair_table(drawn, ticket, ticket.iteration, config.scorer_names, config.pairs.rows, tally.moments)

    def _read(self, ticket: Ticket) -> pa.Table:
        numbers = ticket_rows(self._index, ticket, self.config.rollout.samples_per_ticket, self.config.seed)
        return clean_table(self._rows.rows(numbers), numbers, ticket, self.config, 0.0)


def held_out_images(config: RunConfig, model: TextToImage, weights: str, scorers: list[str]) -> ImageSet:
    """The run's held-out prompts and seeds, drawn from `weights` ("policy" or "initial") and scored."""
    prompts = load_prompts(config.prompts, "prompts.heldout")[: config.evaluation.num_prompts]
    rows = [(p, FIRST_SEED + s) for p in prompts for s in range(config.evaluation.seeds_per_prompt)]
    drawn = []
    for start in range(0, len(rows), config.evaluation.batch):
        batch = rows[start : start + config.evaluation.batch]
        images = draw_images(model, [p for p, _ in batch], [s for _, s in batch], weights)  # type: ignore[arg-type]
        drawn.append(as_stored(images))
    whole, stored = (np.concatenate(part) for part in zip(*drawn, strict=True))
    names = [p for p, _ in rows]
    scores = {name: build_scorer(_reward(config, name)).score(stored, names) for name in scorers}
    return ImageSet(prompts=names, seeds=[s for _, s in rows], images=whole, scores=scores)


def _reward(config: RunConfig, name: str):  # type: ignore[no-untyped-def]
    from rayalign.config import RewardConfig

    return next((reward for reward in config.all_rewards if reward.scorer == name), RewardConfig(scorer=name))
