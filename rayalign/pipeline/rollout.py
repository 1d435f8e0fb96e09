"""The rollout actor: a ticket in, a table of pairs out, drawn from exactly the policy version the ticket needs.

Several tickets are in flight in one actor: while one awaits its scores, another denoises. They share the model's
weights, so a ticket of another version first waits until the actor holds none of the present one.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pyarrow as pa

from rayalign.config import RunConfig
from rayalign.errors import WeightsError
from rayalign.models.load import load_model
from rayalign.models.publish import apply
from rayalign.pipeline.devices import prepare_actor
from rayalign.pipeline.scoring.service import RewardClient
from rayalign.prompts import load_prompts, ticket_prompts
from rayalign.records import Ticket, derive_seed
from rayalign.rewards.tally import ScoreTally
from rayalign.sampling.noise import SampleNoise
from rayalign.sampling.pair_table import pair_table
from rayalign.sampling.sources import draw_ticket, num_prompts


class RolloutActor:
    """Placed by Ray Data as one member of the rollout pool."""

    def __init__(self, config: RunConfig, board: Any) -> None:
        self._config, self._board = config, board
        self._model = load_model(config, prepare_actor(config))
        self._prompts = load_prompts(config.prompts)
        self._score = RewardClient(config.key, config.rewards, config.service)
        self._turns = VersionTurns(self._use_version)
        self._name = f"the rollout actor {socket.gethostname()}:{os.getpid()}"

    async def __call__(self, tickets: pa.Table) -> AsyncIterator[pa.Table]:
        """A table with one row, column `ticket` -> the ticket's pairs (`records.pair_schema`)."""
        ticket = Ticket(tickets["ticket"][0].as_py(), self._config.rollout.tickets_per_iteration)
        self._board.doing.remote(f"ticket {ticket.number}", f"is drawn and scored by {self._name}")
        try:
            async with self._turns.hold(ticket.policy_version(self._config.rollout.max_lag)) as version:
                pairs = await self._draw(ticket, version)
        except WeightsError as error:
            # Retrying would meet the same weights again: the run must stop and say why.
            await self._board.fail.remote(str(error))
            raise
        for failure in self._score.failures:
            await self._board.note.remote(f"no score from {failure}; such pairs are dropped and counted")
        await self._board.ticket_done.remote(ticket.number)
        yield pairs

    async def _draw(self, ticket: Ticket, version: int) -> pa.Table:
        config = self._config
        size = config.rollout.samples_per_ticket
        prompts = ticket_prompts(self._prompts, ticket, num_prompts(config.pairs, size), config.seed)
        seeds = [derive_seed(config.seed, "rollout", ticket.iteration, ticket.slot, sample) for sample in range(size)]
        noise = SampleNoise(seeds, self._model.latent_shape, self._model.device)
        annotated = config.objective.embeds_with is not None
        tally = ScoreTally(self._score)
        drawn = await draw_ticket(self._model, tally, prompts, noise, config.pairs, annotated)
        return pair_table(drawn, ticket, version, config.scorer_names, config.pairs.rows, tally.moments)

    async def _use_version(self, version: int) -> None:
        while (found := await self._board.weights.remote(version)) is None:
            # The board began again (it or the train workers were restarted) while this ticket was on its way.
            await self._board.wait_for.remote(version, self._name)
        boxed, published = found
        apply(self._model, published, await boxed[0])
        self._score.standards = published.standards


class VersionTurns:
    """Lets many tickets of one policy version run at once, and those of another only when the first are done."""

    def __init__(self, use_version: Any) -> None:
        self._use_version = use_version
        self._version: int | None = None
        self._holders = 0
        self._free: asyncio.Condition | None = None

    @asynccontextmanager
    async def hold(self, version: int) -> AsyncIterator[int]:
        """The model holds `version` inside."""
        # Made here: the actor's constructor runs outside the event loop.
        self._free = self._free or asyncio.Condition()
        async with self._free:
            await self._free.wait_for(lambda: self._version == version or self._holders == 0)
            if self._version != version:
                self._version = None  # if applying fails, nothing is held
                await self._use_version(version)
                self._version = version
            self._holders += 1
        try:
            yield version
        finally:
            async with self._free:
                self._holders -= 1
                self._free.notify_all()
