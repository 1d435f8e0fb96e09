"""How pairs change the weights: optimiser, reference model, timesteps. The loss itself is in `rayalign/objectives`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from rayalign.settings import AboveZero, NonNegative, Positive, Settings, Share


class TrainConfig(Settings):
    optimizer: Literal["adamw", "adafactor"] = Field(
        "adamw", description="adafactor keeps row and column means, no moments: less memory for full fine-tuning"
    )
    lr: AboveZero = Field(3e-5, description="learning rate")
    betas: tuple[Share, Share] = Field((0.9, 0.999), description="of adamw's moments")
    adam_eps: AboveZero = Field(
        1e-8, description="adamw's; far above the gradient it turns Adam into gradient descent with momentum"
    )
    weight_decay: NonNegative = Field(1e-4, description="weight decay")
    max_grad_norm: AboveZero = Field(1.0, description="gradient norm above which it is clipped")
    optimizer_steps: Positive = Field(1, description="optimiser steps in one iteration; divides its tickets")
    max_skipped_steps: Positive = Field(
        5, description="optimiser steps in a row whose loss or gradient is not finite, hence skipped, that stop the run"
    )
    micro_batch: Positive = Field(4, description="pairs in one training forward; the rest is gradient accumulation")
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = Field("auto", description="auto: bf16 on a GPU, else no")
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="keep a moving average of the policy too (0.999 is usual); rayalign export --weights ema"
    )
    gradient_checkpointing: bool = Field(False, description="less memory, about a third more time in training")

    @field_validator("mixed_precision", mode="before")
    @classmethod
    def _yaml_no(cls, value: object) -> object:
        return "no" if value is False else value  # YAML reads a bare `no` as false


class FixedReference(Settings):
    """The reference stays the model that the run began with."""

    kind: Literal["fixed"] = "fixed"


class CopiedReference(Settings):
    """The reference becomes a hard copy of the policy every few optimiser steps (Rethinking DPO, 2505.18736)."""

    kind: Literal["copied"] = "copied"
    every: Positive = Field(16, description="optimiser steps between copies (tau)")
    max_divergence: AboveZero | None = Field(
        0.002, description="gate (delta): a copy further than this from the initial model is not made; null for no gate"
    )
    on_exceed: Literal["freeze", "reinit"] = Field(
        "freeze", description="past the gate: keep the reference for good, or set it back to the initial model"
    )
    num_winners: Positive = Field(8, description="winners of the last pairs that the divergence is measured on")


Reference = Annotated[FixedReference | CopiedReference, Field(discriminator="kind")]


class UniformTimesteps(Settings):
    """Re-noised pairs: uniform over the schedule. Step-wise pairs: every tuned step weighs the same."""

    kind: Literal["uniform"] = "uniform"


class ListedTimesteps(Settings):
    """Re-noised pairs: one of a list, uniformly."""

    kind: Literal["listed"] = "listed"
    values: tuple[AboveZero, ...] = Field(
        (999.0, 799.0, 599.0, 399.0, 199.0), min_length=1, description="timesteps as the denoiser is told them"
    )


class EarlyTimesteps(Settings):
    """Noisy timesteps more often: probability gamma^k, k = 0 the noisiest bin (Rethinking DPO, 2505.18736).

    For step-wise and trajectory pairs the bins are the steps trained on, and the draw becomes a weight.
    """

    kind: Literal["early"] = "early"
    gamma: Annotated[float, Field(gt=0, le=1)] = Field(0.9, description="ratio between neighbouring bins")
    bins: Positive = Field(50, description="bins of the schedule, for re-noised pairs")


Timesteps = Annotated[UniformTimesteps | ListedTimesteps | EarlyTimesteps, Field(discriminator="kind")]
