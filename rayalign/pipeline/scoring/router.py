"""Where a scoring call goes: to the emptier of two replicas, and at a further try to one that has not had it yet.

Serve's own router draws its two again at every try, and so may send a call back to the replica that failed it.
"""

from __future__ import annotations

import random
from collections import OrderedDict

from ray.serve.request_router import (
    LocalityMixin,
    PendingRequest,
    ReplicaID,
    RequestRouter,
    RunningReplica,
)

MAX_REMEMBERED = 4096  # calls; those of a client that are unanswered are far fewer
TWO_CHOICES = 2


class RetryRouter(LocalityMixin, RequestRouter):
    """Power of two choices among the replicas that have not had the call; among all of them once each has.

    A call is known by its keyword argument `call`, the same at each of its tries. One router lives in each process
    that asks.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self._had: OrderedDict[str, set[ReplicaID]] = OrderedDict()

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Ranks, the first of which is tried first; of one rank the emptier replica takes the call."""
        if pending_request is None:
            return [_two(candidate_replicas)]
        pending_request.routing_context.should_backoff = True  # or, while all are full, this is asked without a pause
        had = self._had.get(_call(pending_request), set())
        fresh = [replica for replica in candidate_replicas if replica.replica_id not in had]
        return [_two(fresh or candidate_replicas)]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: object) -> None:
        call = _call(pending_request)
        self._had.setdefault(call, set()).add(replica_id)
        self._had.move_to_end(call)
        while len(self._had) > MAX_REMEMBERED:
            self._had.popitem(last=False)


def _call(request: PendingRequest) -> str:
    return str(request.kwargs.get("call", ""))


def _two(replicas: list[RunningReplica]) -> list[RunningReplica]:
    return random.sample(replicas, min(TWO_CHOICES, len(replicas)))
