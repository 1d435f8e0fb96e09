"""The run: every setting, its default, its meaning and its bounds. Validated before any actor starts.

A method is five choices, each a small group of its own: where pairs come from (`pairs`), the loss (`objective`),
the reference model, the timesteps, the reward's scale. Light on purpose (no torch, no Ray): `--help` and a refused
setting answer at once.
"""

from rayalign.config.guard import GuardConfig
from rayalign.config.learning import (
    CopiedReference,
    EarlyTimesteps,
    FixedReference,
    ListedTimesteps,
    Reference,
    Timesteps,
    TrainConfig,
    UniformTimesteps,
)
from rayalign.config.model import FullConfig, LoraConfig, ModelConfig
from rayalign.config.pairs import (
    DatasetPairs,
    FinalPairs,
    GuidanceConfig,
    Pairs,
    SamplePairs,
    StepwisePairs,
    TrajectoryPairs,
)
from rayalign.config.placement import PlacementConfig, PoolConfig, ServiceConfig, WorkersConfig
from rayalign.config.run import (
    EvaluationConfig,
    PromptsConfig,
    RewardConfig,
    RolloutConfig,
    RunConfig,
    SamplerConfig,
)

__all__ = [
    "CopiedReference",
    "DatasetPairs",
    "EarlyTimesteps",
    "EvaluationConfig",
    "FinalPairs",
    "FixedReference",
    "FullConfig",
    "GuardConfig",
    "GuidanceConfig",
    "ListedTimesteps",
    "LoraConfig",
    "ModelConfig",
    "Pairs",
    "PlacementConfig",
    "PoolConfig",
    "PromptsConfig",
    "Reference",
    "RewardConfig",
    "RolloutConfig",
    "RunConfig",
    "SamplePairs",
    "SamplerConfig",
    "ServiceConfig",
    "StepwisePairs",
    "Timesteps",
    "TrainConfig",
    "TrajectoryPairs",
    "UniformTimesteps",
    "WorkersConfig",
]
