"""The run: every setting, its default, its meaning and its bounds. Validated before any actor starts.

Light on purpose (no torch, no Ray): `--help` and a refused setting answer at once.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class Settings(BaseModel):
    """Base of all groups: unknown names are refused, nothing changes after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


class LoraConfig(Settings):
    rank: Positive = Field(4, description="rank of the LoRA (alpha equals it, so its scale is 1)")
    targets: tuple[str, ...] = Field(
        ("to_q", "to_k", "to_v", "to_out.0"), min_length=1, description="denoiser modules that get a LoRA"
    )


class ModelConfig(Settings):
    path: str = Field("toy-sdxl", min_length=1, description="hub id, local diffusers folder, toy-sd15 or toy-sdxl")
    family: Literal["auto", "sd15", "sdxl", "stub"] = Field("auto", description="read from the model where 'auto'")
    resolution: Annotated[int, Field(ge=8, multiple_of=8)] | None = Field(
        None, description="pixels a side; the model's own where null"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of the frozen base weights; auto: bfloat16 on a GPU, float32 on a CPU. LoRA stays float32"
    )
    vae: str | None = Field(None, description="another VAE for scoring (AutoencoderTiny or AutoencoderKL)")
    lora: LoraConfig = LoraConfig()


class SamplerConfig(Settings):
    num_steps: Positive = Field(20, description="denoising steps of a trajectory")
    eta: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="DDIM noise; 0 has no log-probability")
    guidance_scale: Annotated[float, Field(ge=1)] = Field(
        5.0, description="classifier-free guidance, the same in sampling and in training; 1 turns it off"
    )
    tuned_steps: tuple[int, ...] = Field(
        (20, 16, 12, 8, 4), min_length=1, description="steps that branch, counted from num_steps (noisiest) to 1"
    )
    num_candidates: Annotated[int, Field(ge=2)] = Field(2, description="candidates drawn from one x_t at a tuned step")

    @model_validator(mode="after")
    def _tuned_steps_on_schedule(self) -> SamplerConfig:
        for step in self.tuned_steps:
            if not 1 <= step <= self.num_steps:
                raise ValueError(
                    f"tuned_steps: step {step} is outside the schedule; set steps between 1 and "
                    f"num_steps = {self.num_steps}"
                )
        if len(set(self.tuned_steps)) != len(self.tuned_steps):
            raise ValueError("tuned_steps: a step stands twice; name each once")
        return self

    @property
    def calls_per_trajectory(self) -> int:
        """Denoiser calls, each one guided evaluation of one latent: the winner's scoring call is the next step's.

        A candidate of step 1 is already clean, so it is scored without a call.
        """
        return self.num_steps + (self.num_candidates - 1) * sum(step > 1 for step in self.tuned_steps)


class PromptsConfig(Settings):
    source: str = Field("animals", min_length=1, description="animals, shapes, or a .txt, .jsonl or .parquet file")
    heldout: str | None = Field(None, description="prompts of the before/after pictures; the same source where null")
    column: str = Field("prompt", description="column or key that holds the prompt (.jsonl, .parquet)")


class RewardConfig(Settings):
    scorer: str = Field(min_length=1, description="name from the table, or my_package.my_module:MyScorer")
    weight: float = Field(1.0, description="factor in the weighted sum that ranks candidates")
    options: dict[str, Any] = Field(default_factory=dict, description="passed to the scorer")


class RolloutConfig(Settings):
    samples_per_ticket: Positive = Field(4, description="trajectories drawn together (batch size of one ticket)")
    tickets_per_iteration: Positive = Field(16, description="tickets an iteration generates, then trains on")
    max_lag: Annotated[int, Field(ge=0, le=1)] = Field(
        0, description="0: generate, then train; 1: generate the next iteration while this one trains"
    )
    tickets_in_flight: Positive = Field(2, description="tickets one actor works on; one denoises, others await scores")


class TrainConfig(Settings):
    beta: Annotated[float, Field(gt=0)] = Field(0.1, description="DPO temperature, per mean log-probability")
    ratio_clip: Annotated[float, Field(gt=0)] | None = Field(
        0.1, description="each likelihood ratio kept in 1 +- this (D3PO's code); null for none (TailorPO's equation)"
    )
    lr: Annotated[float, Field(gt=0)] = Field(3e-5, description="AdamW learning rate")
    betas: tuple[Share, Share] = Field((0.9, 0.999), description="AdamW moments")
    adam_eps: Annotated[float, Field(gt=0)] = Field(
        1e-8, description="AdamW epsilon; far above the gradient it turns Adam into gradient descent with momentum"
    )
    weight_decay: NonNegative = Field(1e-4, description="AdamW weight decay")
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(1.0, description="gradient norm above which it is clipped")
    optimizer_steps: Positive = Field(1, description="optimiser steps in one iteration; divides its tickets")
    micro_batch: Positive = Field(4, description="pairs in one training forward; the rest is gradient accumulation")
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = Field("auto", description="auto: bf16 on a GPU, else no")
    gradient_checkpointing: bool = Field(False, description="less memory, about a third more time in training")

    @field_validator("mixed_precision", mode="before")
    @classmethod
    def _yaml_no(cls, value: object) -> object:
        return "no" if value is False else value  # YAML reads a bare `no` as false


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
    cpus: NonNegative = Field(1.0, description="logical CPUs each")
    gpus: NonNegative = Field(0.0, description="GPUs each; fractions share one")


class PlacementConfig(Settings):
    rollout: PoolConfig = PoolConfig()
    scorer: PoolConfig = PoolConfig(cpus=0.5)
    train: WorkersConfig = WorkersConfig()
    cluster_may_grow: bool = Field(
        False, description="an autoscaler adds nodes: do not refuse a run that is larger than the cluster is now"
    )
    cpu_threads: Positive = Field(1, description="torch threads of each actor; fixed, since it changes float sums")


class ServiceConfig(Settings):
    max_batch: Positive = Field(16, description="scoring calls that one replica takes together")
    batch_wait_s: NonNegative = Field(0.002, description="longest wait to fill such a batch")
    target_ongoing: Annotated[float, Field(gt=0)] = Field(2.0, description="calls per replica the autoscaler aims at")
    upscale_delay_s: NonNegative = Field(1.0, description="load must last this long to add replicas")
    downscale_delay_s: NonNegative = Field(30.0, description="idling must last this long to remove replicas")
    timeout_s: Annotated[float, Field(gt=0)] = Field(120.0, description="one scoring call")
    retries: Annotated[int, Field(ge=0)] = Field(3, description="more tries, with back-off, before a pair is dropped")
    max_failed_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1, description="share of an iteration's pairs lost to failed scores that stops the run"
    )


class EvaluationConfig(Settings):
    num_prompts: Positive = Field(16, description="held-out prompts of the before/after comparison")
    seeds_per_prompt: Positive = Field(4, description="images of each, same seeds before and after")
    batch: Positive = Field(8, description="images drawn together")
    scorers: tuple[str, ...] = Field((), description="held-out scorers: measured, never trained on")


class RunConfig(Settings):
    """One run. `--config config.yaml` of a run's folder repeats it."""

    name: str = Field("tailorpo", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="folder of the run in output")
    output: str = Field("runs", min_length=1, description="folder of all runs; on a cluster one that every node sees")
    seed: Annotated[int, Field(ge=0)] = Field(0, description="of every random draw")
    iterations: Positive = Field(10, description="times to generate and train")
    model: ModelConfig = ModelConfig()
    sampler: SamplerConfig = SamplerConfig()
    prompts: PromptsConfig = PromptsConfig()
    rewards: tuple[RewardConfig, ...] = Field((RewardConfig(scorer="jpeg"),), min_length=1, description="--reward")
    rollout: RolloutConfig = RolloutConfig()
    train: TrainConfig = TrainConfig()
    placement: PlacementConfig = PlacementConfig()
    service: ServiceConfig = ServiceConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    keep_checkpoints: Positive = Field(3, description="newest checkpoints kept; older ones are removed")
    max_failures: Annotated[int, Field(ge=0)] = Field(3, description="times the train workers may be restarted")
    stall_timeout_s: Annotated[float, Field(gt=0)] = Field(
        1800.0, description="stop with an error if no iteration, ticket or image gets done for this long"
    )

    @model_validator(mode="after")
    def _divisible(self) -> RunConfig:
        tickets, share = self.rollout.tickets_per_iteration, self.train.optimizer_steps * self.placement.train.num
        if tickets % share:
            raise ValueError(
                f"rollout.tickets_per_iteration = {tickets} does not divide into train.optimizer_steps x "
                f"placement.train.num = {share}; set it to a multiple, {-(-tickets // share) * share} for instance"
            )
        names = [reward.scorer for reward in self.rewards] + list(self.evaluation.scorers)
        if len(set(names)) != len(names):
            raise ValueError(f"rewards and evaluation.scorers: a scorer stands twice in {names}; name each once")
        return self

    @property
    def folder(self) -> Path:
        return Path(self.output).expanduser() / self.name

    @property
    def scorer_names(self) -> list[str]:
        """Guiding scorers, in the order of every per-scorer column."""
        return [reward.scorer for reward in self.rewards]

    @property
    def pairs_per_ticket(self) -> int:
        return self.rollout.samples_per_ticket * len(self.sampler.tuned_steps)

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)

    def hash(self) -> str:
        """Of the settings that decide what is learned. Those that only decide where and how long are left out."""
        harmless = {"name", "output", "iterations", "placement", "service", "keep_checkpoints", "max_failures"}
        learned = self.model_dump(mode="json", exclude=harmless | {"stall_timeout_s", "evaluation"})
        learned["rollout"].pop("tickets_in_flight")
        learned["prompts"].pop("heldout")
        return hashlib.blake2b(json.dumps(learned, sort_keys=True).encode(), digest_size=8).hexdigest()
