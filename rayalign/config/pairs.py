"""Where preference pairs come from. A union: each source has its own settings, chosen by `pairs.kind`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from rayalign.settings import AboveZero, NonNegative, Positive, Settings, Share

# What a row of the pair stream holds (see `records.pair_schema`).
RowKind = Literal["stepwise", "trajectory", "clean", "sample"]
Candidates = Annotated[int, Field(ge=2)]
Steps = Annotated[tuple[int, ...], Field(min_length=1)]
# The last transition adds next to no noise (SD's DDIM) or none (rectified flow): its log-ratio is rounding, magnified.
ALL_BUT_LAST = "steps trained on, counted from num_steps (noisiest) to 1; all but the last where null"


class GuidanceConfig(Settings):
    """TailorPO-G: the winner is moved along the reward's gradient, and kept so where its own reward then is higher."""

    enabled: bool = Field(False, description="gradient guidance of the winner (TailorPO-G); needs such scorers")
    delta: AboveZero = Field(0.5, description="how far above its reward the winner is pulled")
    eta_noisy: NonNegative = Field(0.1, description="guidance strength at the noisiest step")
    eta_clean: NonNegative = Field(0.2, description="guidance strength at the cleanest step; cosine in between")


class StepwisePairs(Settings):
    """Candidates branch from one x_t at tuned steps (TailorPO; with `random` continuation and a gap, SPO)."""

    rows: ClassVar[RowKind] = "stepwise"
    kind: Literal["stepwise"] = "stepwise"
    tuned_steps: Steps = Field(
        (20, 16, 12, 8, 4), description="steps that branch, counted from num_steps (noisiest) to 1"
    )
    num_candidates: Candidates = Field(2, description="candidates drawn from one x_t at a tuned step")
    continuation: Literal["winner", "random"] = Field("winner", description="candidate that goes on")
    min_gap: NonNegative = Field(0.0, description="pairs whose rewards differ by no more than this are dropped")
    guidance: GuidanceConfig = GuidanceConfig()

    @field_validator("tuned_steps")
    @classmethod
    def _each_once(cls, steps: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(steps)) != len(steps):
            raise ValueError("a step stands twice; name each once")
        return steps

    def steps_on(self, num_steps: int) -> tuple[int, ...]:
        return self.tuned_steps

    def calls_per_trajectory(self, num_steps: int) -> int:
        """Denoiser calls, each one guided evaluation of one latent: the winner's scoring call is the next step's.

        A candidate of step 1 is already clean, so it is scored without a call. Gradient guidance adds two for each
        tuned step: one that carries the gradient, one that scores the moved winner (one and none at step 1).
        """
        branching = sum(step > 1 for step in self.tuned_steps)
        guided = 2 * branching if self.guidance.enabled else 0
        return num_steps + (self.num_candidates - 1) * branching + guided


class TrajectoryPairs(Settings):
    """Whole trajectories from one x_T; the finished images are ranked and the label holds at every step (D3PO)."""

    rows: ClassVar[RowKind] = "trajectory"
    kind: Literal["trajectory"] = "trajectory"
    num_candidates: Candidates = Field(2, description="trajectories drawn from one x_T; best against worst")
    steps: Steps | None = Field(None, description=ALL_BUT_LAST)
    min_gap: NonNegative = Field(0.0, description="pairs whose rewards differ by no more than this are dropped")

    def steps_on(self, num_steps: int) -> tuple[int, ...]:
        return self.steps or tuple(range(num_steps, 1, -1))

    def calls_per_trajectory(self, num_steps: int) -> int:
        return num_steps


class FinalPairs(Settings):
    """Finished images of one prompt, ranked; re-noised in training (Diffusion-DPO and Diffusion-RPO, online)."""

    rows: ClassVar[RowKind] = "clean"
    kind: Literal["final"] = "final"
    num_candidates: Candidates = Field(2, description="images drawn for a prompt; best against worst")
    min_gap: NonNegative = Field(0.0, description="pairs whose rewards differ by no more than this are dropped")
    draws: Positive = Field(1, description="noises and timesteps that each pair is trained with")

    def steps_on(self, num_steps: int) -> tuple[int, ...]:
        return (0,)

    def calls_per_trajectory(self, num_steps: int) -> int:
        return num_steps


class SamplePairs(Settings):
    """Whole trajectories with a scalar reward each, no pairs: DDPO's batch."""

    rows: ClassVar[RowKind] = "sample"
    kind: Literal["sample"] = "sample"
    group: Candidates = Field(4, description="trajectories of one prompt whose rewards are normalised together")
    steps: Steps | None = Field(None, description=ALL_BUT_LAST)

    def steps_on(self, num_steps: int) -> tuple[int, ...]:
        return self.steps or tuple(range(num_steps, 1, -1))

    def calls_per_trajectory(self, num_steps: int) -> int:
        return num_steps


class DatasetPairs(Settings):
    """Image pairs that exist already: offline training."""

    rows: ClassVar[RowKind] = "clean"
    kind: Literal["dataset"] = "dataset"
    path: str = Field("", description="Pick-a-Pic parquet (file or folder), a JSONL of pairs, or winners/ and losers/")
    cache: str | None = Field(None, description="folder for the VAE latents, computed once; not kept where null")
    max_broken_share: Share = Field(0.05, description="share of broken rows that stops the run")
    empty_prompt_share: Share = Field(0.0, description="pairs trained with the empty prompt (Diffusion-DPO: 0.2)")
    draws: Positive = Field(1, description="noises and timesteps that each pair is trained with")

    def steps_on(self, num_steps: int) -> tuple[int, ...]:
        return (0,)

    def calls_per_trajectory(self, num_steps: int) -> int:
        return 0


Pairs = Annotated[
    StepwisePairs | TrajectoryPairs | FinalPairs | SamplePairs | DatasetPairs, Field(discriminator="kind")
]
