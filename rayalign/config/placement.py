"""How many actors of each kind, what each takes, and how scoring is served."""

from __future__ import annotations

import hashlib
from typing import Annotated

from pydantic import Field, model_validator

from rayalign.settings import AboveZero, NonNegative, Positive, Settings


class PoolConfig(Settings):
    """How many actors, and what share of a node each takes. Fractions are allowed."""

    min: Positive = Field(1, description="actors (or replicas) kept up")
    max: Positive = Field(1, description="actors (or replicas) under load")
    cpus: NonNegative = Field(1.0, description="logical CPUs each")
    gpus: NonNegative = Field(0.0, description="GPUs each; fractions share one")

    @model_validator(mode="after")
    def _ordered(self) -> PoolConfig:
        if self.max < self.min:
            raise ValueError(f"max = {self.max} is below min = {self.min}; set max to at least min")
        return self


class WorkersConfig(Settings):
    num: Positive = Field(1, description="Ray Train workers")
    min: Positive | None = Field(
        None, description="go on with as few while nodes are missing, with more once they are back; null: always num"
    )
    cpus: NonNegative = Field(1.0, description="logical CPUs each")
    gpus: NonNegative = Field(0.0, description="GPUs each; fractions share one")

    @property
    def fewest(self) -> int:
        return self.num if self.min is None else self.min

    @model_validator(mode="after")
    def _ordered(self) -> WorkersConfig:
        if self.fewest > self.num:
            raise ValueError(f"min = {self.min} is above num = {self.num}; set min to at most num")
        return self


class PlacementConfig(Settings):
    rollout: PoolConfig = PoolConfig()
    scorer: PoolConfig = PoolConfig(cpus=0.5)
    annotate: PoolConfig = PoolConfig(cpus=0.5)
    train: WorkersConfig = WorkersConfig()
    cluster_may_grow: bool = Field(
        False, description="an autoscaler adds nodes: do not refuse a run that is larger than the cluster is now"
    )
    cpu_threads: Positive = Field(1, description="torch threads of each actor; fixed, since it changes float sums")


class ServiceConfig(Settings):
    max_batch: Positive = Field(32, description="images that one replica scores together")
    batch_wait_s: NonNegative = Field(0.002, description="longest wait to fill such a batch")
    max_queued: Positive = Field(128, description="images that one actor may have unanswered at one scorer")
    target_ongoing: AboveZero = Field(2.0, description="calls per replica the autoscaler aims at")
    upscale_delay_s: NonNegative = Field(1.0, description="load must last this long to add replicas")
    downscale_delay_s: NonNegative = Field(30.0, description="idling must last this long to remove replicas")
    timeout_s: AboveZero = Field(120.0, description="one scoring call")
    retries: Annotated[int, Field(ge=0)] = Field(3, description="more tries, with back-off, before a pair is dropped")
    max_failed_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1, description="share of an iteration's pairs lost to failed scores that stops the run"
    )


def cluster_key(name: str, output: str) -> str:
    """Tells a run apart from all others on a cluster: its name, and a digest of where it is written."""
    return f"{name}-{hashlib.blake2b(output.encode(), digest_size=3).hexdigest()}"
