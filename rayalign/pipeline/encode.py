"""Offline pairs: a ticket of row numbers in, a table of clean pairs out; and the pass that fills the latent cache."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray

from rayalign.config import DatasetPairs, RunConfig
from rayalign.data.latents import Encode, LatentCache, LatentSource, encode_rows, fingerprint
from rayalign.data.preferences import PreferenceIndex, read_rows
from rayalign.data.source import open_pairs
from rayalign.data.tickets import clean_table, ticket_rows
from rayalign.models.pixels import encode_pixels
from rayalign.models.vae import load_vae, model_resolution
from rayalign.pipeline.data_pass import in_pool
from rayalign.pipeline.devices import prepare_actor
from rayalign.records import Ticket


class EncodeActor:
    """Placed by Ray Data with the rollout pool's resources; holds the VAE alone, and that only without a cache."""

    def __init__(self, config: RunConfig, board: Any) -> None:
        self._config, self._board = config, board
        self._index = open_pairs(_pairs(config).path)
        cache = latent_cache(config, self._index)
        encode = None if cache else make_encoder(config)
        self._source = LatentSource(self._index, encode, model_resolution(config), cache)

    def __call__(self, tickets: pa.Table) -> pa.Table:
        """A table with one row, column `ticket` -> the ticket's pairs (`records.pair_schema`, clean)."""
        started = time.perf_counter()
        ticket = Ticket(tickets["ticket"][0].as_py(), self._config.rollout.tickets_per_iteration)
        numbers = ticket_rows(self._index, ticket, self._config.rollout.samples_per_ticket, self._config.seed)
        rows = self._source.rows(numbers)
        table = clean_table(rows, numbers, ticket, self._config, time.perf_counter() - started)
        self._board.ticket_done.remote(ticket.number)
        return table


class CacheActor:
    """Writes the latents of one group of the set."""

    def __init__(self, config: RunConfig, cache: LatentCache) -> None:
        self._index, self._cache = open_pairs(_pairs(config).path), cache
        self._encode, self._resolution = make_encoder(config), model_resolution(config)

    def __call__(self, groups: pa.Table) -> pa.Table:
        for group in groups["group"].to_pylist():
            first = sum(self._index.group_rows[:group])
            numbers = list(range(first, first + self._index.group_rows[group]))
            self._cache.write(group, encode_rows(read_rows(self._index, numbers), self._encode, self._resolution))
        return groups


def fill_cache(config: RunConfig) -> Iterator[dict[str, int]]:
    """Encodes the groups that the cache lacks, by a pool of actors. A killed pass goes on from it.

    Yields nothing ({}) for each group that is done; at the end all rows by status.
    """
    index = open_pairs(_pairs(config).path)
    cache = latent_cache(config, index)
    assert cache is not None
    if missing := cache.missing(len(index.group_rows)):
        groups = ray.data.from_blocks([pa.table({"group": [group]}) for group in missing])
        done = in_pool(groups, CacheActor, (config, cache), config.placement.rollout)
        for _ in done.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield {}
    yield cache.count(len(index.group_rows))


def latent_cache(config: RunConfig, index: PreferenceIndex) -> LatentCache | None:
    pairs = _pairs(config)
    if pairs.cache is None:
        return None
    model = f"{config.model.path} {config.model.vae} {config.model.dtype}"
    name = fingerprint(index, pairs.path, model, model_resolution(config))
    return LatentCache(Path(pairs.cache).expanduser() / name)


def make_encoder(config: RunConfig) -> Encode:
    device = prepare_actor(config)
    vae = load_vae(config, device)
    encode = partial(encode_pixels, vae)
    return lambda images: encode(images.to(device))


def _pairs(config: RunConfig) -> DatasetPairs:
    assert isinstance(config.pairs, DatasetPairs)
    return config.pairs
