"""The gate: a ticket passes once the policy version it needs exists.

A stage of its own, ahead of the rollout pool: waiting inside a rollout actor would look like load to the autoscaler,
and a later ticket could hold the actor that an earlier one needs (a deadlock, seen).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pyarrow as pa

from rayalign.records import Ticket


class Gate:
    """One async actor; many tickets wait in it at once."""

    def __init__(self, board: Any, tickets_per_iteration: int, max_lag: int) -> None:
        self._board, self._tickets, self._max_lag = board, tickets_per_iteration, max_lag

    async def __call__(self, tickets: pa.Table) -> AsyncIterator[pa.Table]:
        """A table with one row, column `ticket`, passes unchanged."""
        ticket = Ticket(tickets["ticket"][0].as_py(), self._tickets)
        await self._board.wait_for.remote(ticket.policy_version(self._max_lag), f"ticket {ticket.number}")
        yield tickets
