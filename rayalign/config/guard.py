"""Guards of a run's numbers: when to warn, stop, or go back. docs/guards.md says how each is measured."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rayalign.settings import AboveZero, Settings


class GuardConfig(Settings):
    grad_norm: AboveZero | None = Field(
        30.0, description="limit of the largest gradient norm of an iteration, in medians of those before; null: none"
    )
    log_ratio: AboveZero | None = Field(
        0.5, description="limit of the mean |log policy/reference| of a pair's latents, per latent element; null: none"
    )
    divergence: AboveZero | None = Field(
        0.05, description="limit of the mean square by which policy and initial model predict differently; null: none"
    )
    on_limit: Literal["warn", "stop"] = Field("warn", description="past one of those: a warning (once), or stop")
    max_failed_latents: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1, description="share of an iteration's pairs lost to latents that are NaN or infinite that stops the run"
    )
    on_collapse: Literal["warn", "stop", "rollback"] = Field(
        "warn",
        description="reward up while pictures or held-out scores fall (needs evaluation.every): a warning (once), stop "
        "with an error, or end there with the last good policy",
    )
    max_fall: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.3, description="share of edges, colours, saturation or diversity that may be lost before that is collapse"
    )
    max_fall_heldout: AboveZero = Field(
        0.5, description="fall of a held-out scorer that is collapse, in its standard deviations between prompts before"
    )
