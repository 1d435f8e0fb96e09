"""An evaluation: base against tuned models, on the same prompts and seeds. Light, as every settings group."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from rayalign.config.checks import check_no_secrets
from rayalign.config.model import ModelConfig
from rayalign.config.placement import PoolConfig, ServiceConfig, cluster_key
from rayalign.config.run import RewardConfig, RunConfig, SamplerConfig
from rayalign.settings import Positive, Settings

BASE = "base"


class EvaluatedPrompts(Settings):
    source: str = Field("animals", min_length=1, description="a set by name, or a file")
    column: str | None = Field(None, description="of the prompt, in files with columns")
    category: str | None = Field(None, description="column of the category, where the set has one")
    num: Positive | None = Field(None, description="prompts taken, evenly over the set; all where null")


class ReferencePictures(Settings):
    folder: str | None = Field(None, description="pictures that FID and KID compare with; null: neither")
    extractor: str = Field("clip", description="what FID and KID look with: clip, toy-clip, inception, or your own")
    options: dict[str, Any] = Field({}, description="passed to the extractor")


class EvaluateConfig(Settings):
    """`base` draws with the untuned model; each of `models` is a run's folder, a LoRA, or a whole model."""

    name: str = Field("evaluation", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="folder in output")
    output: str = Field("evaluations", min_length=1, description="folder of all evaluations")
    base: ModelConfig = ModelConfig()
    models: dict[str, str] = Field({}, description="label -> a run's folder, a LoRA file or folder, or a model")
    sampler: SamplerConfig = SamplerConfig()
    prompts: EvaluatedPrompts = EvaluatedPrompts()
    seeds_per_prompt: Positive = Field(4, description="images of each prompt, the same seeds for every model")
    first_seed: Annotated[int, Field(ge=0)] = Field(1000, description="the others follow it")
    batch: Positive = Field(8, description="images drawn together")
    rewards: tuple[RewardConfig, ...] = Field((), description="scorers that a model was tuned on")
    heldout: tuple[RewardConfig, ...] = Field((), description="scorers that none was tuned on")
    reference: ReferencePictures = ReferencePictures()
    pool: PoolConfig = PoolConfig()
    scorer: PoolConfig = PoolConfig(cpus=0.5)
    service: ServiceConfig = ServiceConfig()
    cpu_threads: Positive = Field(1, description="torch threads of each actor; fixed, since it changes float sums")
    stall_timeout_s: Annotated[float, Field(gt=0)] = Field(
        1800.0, description="stop with an error if no image gets done for this long"
    )

    @field_validator("models")
    @classmethod
    def _labels(cls, models: dict[str, str]) -> dict[str, str]:
        for label in models:
            if label == BASE or not label.replace("-", "").replace("_", "").replace(".", "").isalnum():
                raise ValueError(f"{label!r} is no label; use letters, digits and -_. and not {BASE!r}")
        return models

    @model_validator(mode="after")
    def _something_to_say(self) -> EvaluateConfig:
        check_no_secrets(self)
        names = self.scorer_names
        if not names:
            raise ValueError("no scorer; set --reward or --heldout to at least one")
        if len(set(names)) != len(names):
            raise ValueError(f"a scorer stands twice in {', '.join(names)}; name each once")
        return self

    @property
    def folder(self) -> Path:
        return Path(self.output).expanduser() / self.name

    @property
    def key(self) -> str:
        """As of a run: what its services are called by on a cluster."""
        return cluster_key(self.name, self.output)

    @property
    def labels(self) -> list[str]:
        """The base first."""
        return [BASE, *self.models]

    @property
    def scorer_names(self) -> list[str]:
        """Guiding ones first."""
        return [one.scorer for one in (*self.rewards, *self.heldout)]

    def decides_pictures(self) -> dict[str, Any]:
        """The settings that pictures and scores follow from; the others say where and how fast."""
        names = {"base", "sampler", "prompts", "seeds_per_prompt", "first_seed", "batch", "rewards", "heldout"}
        tree = self.model_dump(mode="json", include=names)
        for one in (*tree["rewards"], *tree["heldout"]):
            one.pop("placement")
        return tree

    def drawn_by(self, path: str) -> RunConfig:
        """A run's settings that draw from the model at `path` as this evaluation does."""
        tree = {
            "model": self.base.model_dump() | {"path": path},
            "sampler": self.sampler.model_dump(),
            "pairs": {"kind": "final"},  # a sampler with few steps has none of the usual tuned ones
            "placement": {"cpu_threads": self.cpu_threads},
        }
        return RunConfig.model_validate(tree)
