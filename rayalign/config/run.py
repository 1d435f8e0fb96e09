"""The run as a whole: its groups, and what must hold between them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, model_validator

from rayalign.config.checks import check_choices, check_divisible, check_no_secrets
from rayalign.config.guard import GuardConfig
from rayalign.config.learning import FixedReference, Reference, Timesteps, TrainConfig, UniformTimesteps
from rayalign.config.model import ModelConfig
from rayalign.config.pairs import Pairs, StepwisePairs
from rayalign.config.placement import PlacementConfig, PoolConfig, ServiceConfig, cluster_key
from rayalign.objectives.dpo import DPO
from rayalign.objectives.table import union
from rayalign.settings import AboveZero, Positive, Settings

if TYPE_CHECKING:
    from rayalign.objectives.base import Objective
else:
    Objective = union()


class SamplerConfig(Settings):
    num_steps: Positive = Field(20, description="denoising steps of a trajectory")
    eta: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="DDIM noise; 0 has no log-probability")
    guidance_scale: Annotated[float, Field(ge=1)] = Field(
        5.0, description="classifier-free guidance, the same in sampling and in training; 1 turns it off"
    )
    flow_noise: AboveZero = Field(0.7, description="noise level a of a rectified flow's SDE (SD 3); DDIM uses eta")


class PromptsConfig(Settings):
    source: str = Field("animals", min_length=1, description="animals, shapes, or a .txt, .jsonl or .parquet file")
    heldout: str | None = Field(None, description="prompts of the before/after pictures; the same source where null")
    column: str = Field("prompt", description="column or key that holds the prompt (.jsonl, .parquet)")


class RewardConfig(Settings):
    scorer: str = Field(min_length=1, description="name from the table, or my_package.my_module:MyScorer")
    weight: float = Field(1.0, description="factor in the weighted sum that ranks candidates")
    scale: Literal["raw", "standardised"] = Field(
        "raw",
        description="raw: the scorer's own; standardised: less its running mean, over its running standard deviation, "
        "of all that the run has scored",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="passed to the scorer")
    environment: str | None = Field(
        None,
        description="where the scorer runs if not beside everything else: an environment's folder, its interpreter, or "
        "image:registry/name:tag; null makes the one that it needs, if any",
    )
    placement: PoolConfig | None = Field(
        None, description="replicas of this scorer alone (min, max, cpus, gpus); null: as placement.scorer"
    )

    def pool(self, usual: PoolConfig) -> PoolConfig:
        """Its replicas: its own, else as of every scorer."""
        return usual if self.placement is None else self.placement


def _named(given: Any) -> Any:
    """A bare name stands for a scorer that has nothing but its name."""
    if not isinstance(given, list | tuple):
        return given
    return [item if isinstance(item, dict | RewardConfig) else {"scorer": item} for item in given]


class RolloutConfig(Settings):
    samples_per_ticket: Positive = Field(4, description="trajectories drawn together (batch size of one ticket)")
    tickets_per_iteration: Positive = Field(16, description="tickets an iteration generates, then trains on")
    max_lag: Annotated[int, Field(ge=0, le=1)] = Field(
        0, description="0: generate, then train; 1: generate the next iteration while this one trains"
    )
    tickets_in_flight: Positive = Field(2, description="tickets one actor works on; one denoises, others await scores")


class EvaluationConfig(Settings):
    num_prompts: Positive = Field(16, description="held-out prompts of the before/after comparison")
    seeds_per_prompt: Positive = Field(4, description="images of each, same seeds before and after")
    batch: Positive = Field(8, description="images drawn together")
    scorers: Annotated[tuple[RewardConfig, ...], BeforeValidator(_named)] = Field(
        (), description="held-out scorers: measured, never trained on; in YAML a name, or all that a reward takes"
    )
    every: Annotated[int, Field(ge=0)] = Field(
        5, description="iterations between held-out measurements while training (0: none); collapse alarms need them"
    )
    best_by: str | None = Field(
        None, description="scorer that tells the best checkpoint on held-out prompts; null: the first held-out one"
    )
    probe_prompts: Positive = Field(8, description="held-out prompts of such a measurement")
    probe_seeds: Positive = Field(2, description="images of each; diversity between them needs two")


class RunConfig(Settings):
    """One run. `--config config.yaml` of a run's folder repeats it."""

    name: str = Field("tailorpo", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="folder of the run in output")
    output: str = Field("runs", min_length=1, description="folder of all runs; on a cluster one that every node sees")
    checkpoints: str | None = Field(
        None,
        min_length=1,
        description="folder or URI (s3://, gs://, what fsspec knows) that holds <name>/ with its checkpoints; null: "
        "within the run's folder",
    )
    resume: str | None = Field(
        None, min_length=1, description="another run's folder or checkpoints, from whose newest this one goes on"
    )
    seed: Annotated[int, Field(ge=0)] = Field(0, description="of every random draw")
    iterations: Positive = Field(10, description="times to generate and train")
    model: ModelConfig = ModelConfig()
    sampler: SamplerConfig = SamplerConfig()
    prompts: PromptsConfig = PromptsConfig()
    rewards: tuple[RewardConfig, ...] = Field((RewardConfig(scorer="jpeg"),), min_length=1, description="--reward")
    pairs: Pairs = StepwisePairs()
    objective: Objective = DPO()
    reference: Reference = FixedReference()
    timesteps: Timesteps = UniformTimesteps()
    reward_scale: Literal["constant", "snr"] = Field(
        "constant", description="factor inside the sigmoid; snr: from 1 (clean) to 2 (noisy), as Rethinking DPO does"
    )
    rollout: RolloutConfig = RolloutConfig()
    train: TrainConfig = TrainConfig()
    guard: GuardConfig = GuardConfig()
    placement: PlacementConfig = PlacementConfig()
    service: ServiceConfig = ServiceConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = Field(
        ("tensorboard",), description="where curves and pictures go beside the run's folder: tensorboard, wandb, mlflow"
    )
    keep_checkpoints: Positive = Field(3, description="newest checkpoints kept, beside the best held-out one")
    max_failures: Annotated[int, Field(ge=0)] = Field(
        3, description="restarts of training in a row without an iteration done in between"
    )
    stall_timeout_s: Annotated[float, Field(gt=0)] = Field(
        1800.0, description="stop with an error if no iteration, ticket or image gets done for this long"
    )

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        check_no_secrets(self)
        check_divisible(self)
        check_choices(self)
        return self

    @property
    def folder(self) -> Path:
        return Path(self.output).expanduser() / self.name

    @property
    def checkpoint_root(self) -> str:
        """Folder or URI of this run's checkpoints."""
        if self.checkpoints is None:
            return str(self.folder / "checkpoints")
        return f"{self.checkpoints.rstrip('/')}/{self.name}"

    @property
    def best_by(self) -> str:
        """What the best checkpoint is chosen by: a scorer, or "reward", the guiding scorers' weighted sum."""
        return self.evaluation.best_by or next(iter(self.heldout_names), "reward")

    @property
    def key(self) -> str:
        """Tells the run apart from all others on a cluster."""
        return cluster_key(self.name, self.output)

    @property
    def scorer_names(self) -> list[str]:
        """Guiding scorers, in the order of every per-scorer column."""
        return [reward.scorer for reward in self.rewards]

    @property
    def heldout_names(self) -> list[str]:
        """Held-out scorers."""
        return [reward.scorer for reward in self.evaluation.scorers]

    @property
    def standardised(self) -> list[str]:
        """Guiding scorers on the common scale."""
        return [reward.scorer for reward in self.rewards if reward.scale == "standardised"]

    @property
    def pairs_per_ticket(self) -> int:
        """Rows of a ticket's table, dropped ones included."""
        return self.rollout.samples_per_ticket * len(self.pairs.steps_on(self.sampler.num_steps))

    @property
    def all_scorers(self) -> list[str]:
        """Guiding scorers, then held-out ones."""
        return [reward.scorer for reward in self.all_rewards]

    @property
    def all_rewards(self) -> list[RewardConfig]:
        """What a service is started for: guiding scorers, then held-out ones."""
        return [*self.rewards, *self.evaluation.scorers]

    def given(self) -> RunConfig:
        """The run whose inputs must be there at the start: this one, unless a job makes some of them itself."""
        return self

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def learned(self) -> dict[str, Any]:
        """The settings that decide what is learned, as a tree. Those that only decide where, how fast and how long are
        left out: a run may go on with others.
        """
        learned = self.model_dump(mode="json", exclude=_HARMLESS)
        for reward in learned["rewards"]:
            reward.pop("placement")
        for name in ("tickets_in_flight", "max_lag"):
            learned["rollout"].pop(name)
        learned["prompts"].pop("heldout")
        if self.standardised:  # the first version's scale comes from the pictures before tuning
            measured = self.evaluation.model_dump(mode="json", include={"num_prompts", "seeds_per_prompt", "batch"})
            learned["before"] = measured | {"prompts": self.prompts.heldout}
        of_adamw = ("betas", "adam_eps") if self.train.optimizer == "adafactor" else ()
        for name in ("max_skipped_steps", "ema_decay", "gradient_checkpointing", *of_adamw):
            learned["train"].pop(name)
        for name in ("cache", "max_broken_share"):
            learned["pairs"].pop(name, None)
        if self.objective.gathers:  # each pair is set against those of all workers
            learned["placement"] = {"train": {"num": self.placement.train.num}}
        return learned

    def hash(self) -> str:
        """Of what is learned."""
        return hashlib.blake2b(json.dumps(self.learned(), sort_keys=True).encode(), digest_size=8).hexdigest()


_HARMLESS = {
    *("name", "output", "checkpoints", "resume", "iterations", "placement", "service", "evaluation"),
    *("guard", "trackers", "keep_checkpoints", "max_failures", "stall_timeout_s"),
}
