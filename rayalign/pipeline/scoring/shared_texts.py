"""A replica's side of the run's store of texts. Without one it encodes for itself: slower, but the same scores."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from rayalign.pipeline.scoring.names import store_name
from rayalign.pipeline.scoring.text_store import NAMESPACE, SILENCE_S, WAIT_S, Embeddings
from rayalign.rewards.protocol import TextEncoder

logger = logging.getLogger(__name__)

PATIENCE_S = 60.0  # waited for other replicas' texts in all, before a replica encodes them itself
RETRY_S = 30.0  # until a store that was gone is looked for again


class SharedTexts:
    """A replica's side: fills its scorer's texts from the run's store, and the store from its scorer's.

    Args:
        run: as the reward services were started with.
        scorer: whose texts these are; the same name stands for the same weights.
        encoder: the scorer.

    Attributes:
        num_alone: times that the store was not there.
    """

    def __init__(self, run: str, scorer: str, encoder: TextEncoder) -> None:
        self._run, self._scorer, self._encoder = run, scorer, encoder
        self._replica = uuid.uuid4().hex
        self._runs_before = encoder.num_text_runs  # of a first try, which belongs to no run
        self._store: Any = None
        self._look_again_at = 0.0
        self.num_alone = 0

    def fetch(self, prompts: Sequence[str]) -> None:
        """Afterwards the scorer holds the texts, unless there is no store, or one cannot be encoded. Blocks."""
        missing = self._encoder.missing_texts(prompts)
        deadline = time.monotonic() + PATIENCE_S
        while missing and time.monotonic() < deadline:
            answer = self._ask("claim", missing)
            if answer is None:
                return
            found, mine = answer
            for prompt, embedding in found.items():
                self._encoder.keep_text(prompt, embedding)
            if mine and not self._encode(mine):
                return
            missing = self._encoder.missing_texts(missing)

    def _encode(self, prompts: list[str]) -> bool:
        """Whether each could be; what is wrong with one that could not, `score` will meet again, and say."""
        made: Embeddings = {}
        for prompt in prompts:
            try:
                made[prompt] = self._encoder.encode_text(prompt)
            except Exception:  # whatever a user's scorer raises
                break
        num_runs = self._encoder.num_text_runs - self._runs_before
        self._ask("put", self._replica, num_runs, made, prompts[len(made) :])
        return len(made) == len(prompts)

    def _ask(self, method: str, *arguments: Any) -> Any:
        """The store's answer; None where it is gone."""
        # Outside of Ray, where a benchmark uses an actor's class in its own process, asking would start a cluster.
        if not ray.is_initialized() or time.monotonic() < self._look_again_at:
            return None
        try:
            self._store = self._store or ray.get_actor(store_name(self._run), NAMESPACE)
            return ray.get(getattr(self._store, method).remote(self._scorer, *arguments), timeout=WAIT_S + SILENCE_S)
        except (ValueError, RayError) as error:
            if not self.num_alone:
                logger.warning("no store of texts (%s); this replica of %s encodes for itself", error, self._scorer)
            self.num_alone += 1
            self._store, self._look_again_at = None, time.monotonic() + RETRY_S
            return None
