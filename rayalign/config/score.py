"""Scoring pictures that exist: what to score, by what, and where the scores go. Light, as every settings group."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from rayalign.config.checks import check_no_secrets
from rayalign.config.placement import PoolConfig
from rayalign.config.run import RewardConfig
from rayalign.settings import Pixels, Positive, Settings


class OneScorerConfig(Settings):
    scorer: str = Field(min_length=1, description="name from the table, or my_package.my_module:MyScorer")
    options: dict[str, Any] = Field({}, description="passed to the scorer")
    environment: str | None = Field(None, description="as in a run's rewards")

    def reward(self) -> RewardConfig:
        return RewardConfig(scorer=self.scorer, options=self.options, environment=self.environment)


class ScoreConfig(Settings):
    images: str = Field(min_length=1, description="folder of images; .parquet file, folder or pattern of such")
    output: str = Field("scores", min_length=1, description="folder of the result, which the driver writes")
    scorers: tuple[OneScorerConfig, ...] = Field(min_length=1, description="what to score with")
    prompt: str | None = Field(None, min_length=1, description="one prompt for all; else each image has its own")
    prompt_column: str | None = Field(None, description="of parquet or metadata.jsonl; null: prompt, text or caption")
    image_column: str | None = Field(None, description="of parquet; null: image")
    id_column: str | None = Field(None, description="of parquet: what names a row in the result; null: its number")
    resolution: Pixels | None = Field(None, description="cut to a middle square of so many pixels; null: as they are")
    batch: Positive = Field(32, description="images that a scorer gets at once, of one size")
    rows_per_file: Positive = Field(256, description="images of a folder that make one file of the result")
    pool: PoolConfig = PoolConfig()
    cpu_threads: Positive = Field(1, description="torch threads of each actor; fixed, since it changes float sums")
    stall_timeout_s: Annotated[float, Field(gt=0)] = Field(
        1800.0, description="stop with an error if no image gets done for this long"
    )

    @field_validator("scorers")
    @classmethod
    def _each_once(cls, scorers: tuple[OneScorerConfig, ...]) -> tuple[OneScorerConfig, ...]:
        names = [one.scorer for one in scorers]
        if len(set(names)) != len(names):
            raise ValueError(f"a scorer stands twice in {', '.join(names)}; name each once")
        return scorers

    @model_validator(mode="after")
    def _no_secrets(self) -> ScoreConfig:
        check_no_secrets(self)
        return self

    @property
    def names(self) -> list[str]:
        """Scorers, in the order of the result's columns."""
        return [one.scorer for one in self.scorers]

    def decides_scores(self) -> dict[str, Any]:
        """The settings that the result follows from; the others say where and how fast."""
        return self.model_dump(mode="json", exclude={"images", "output", "pool", "stall_timeout_s"})
