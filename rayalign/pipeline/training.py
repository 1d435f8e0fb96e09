"""Ray Train, as the driver starts it: its workers, and the pair stream as their dataset."""

from __future__ import annotations

import time
from typing import Any

from ray.data import ExecutionOptions
from ray.train import DataConfig, FailureConfig, ScalingConfig
from ray.train import RunConfig as TrainRunConfig
from ray.train.torch import TorchTrainer

from rayalign.config import RunConfig
from rayalign.errors import RunStopped
from rayalign.evaluation.image_set import ImageSet
from rayalign.pipeline.pair_stream import pair_dataset_factory
from rayalign.pipeline.trainer import train_loop
from rayalign.rewards.statistics import NO_SCORES, ByScorer, Moments, moments_of


def first_statistics(config: RunConfig, before: ImageSet) -> dict[str, Moments]:
    """Of the guiding scorers on the pictures before tuning: what version 0 standardises by.

    Raises RunStopped if a standardised scorer scored fewer than two of them.
    """
    found = {name: moments_of(before.scores[name]) for name in config.scorer_names}
    for name in config.standardised:
        if found[name].count < 2:
            raise RunStopped(
                f"{name} scored {found[name].count:.0f} of {len(before)} pictures before tuning, and with scale = "
                f"standardised it needs two; see its errors above, or set its scale to raw"
            )
    return found


def make_trainer(
    config: RunConfig, board: Any, scores: ByScorer = NO_SCORES, began: float | None = None
) -> TorchTrainer:
    """Ray Train with the pair stream as its dataset.

    Args:
        scores: statistics that a run without checkpoint begins with.
        began: time.time() at which the job began, now where null.
    """
    workers = config.placement.train
    return TorchTrainer(
        train_loop,
        train_loop_config={"config": config, "board": board, "scores": dict(scores), "began": began or time.time()},
        scaling_config=ScalingConfig(
            num_workers=(workers.fewest, workers.num) if workers.fewest < workers.num else workers.num,
            use_gpu=workers.gpus > 0,
            resources_per_worker={"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {}),
        ),
        # A fresh name: resuming is from our own checkpoints, which board, dataset and workers all read alike.
        run_config=TrainRunConfig(
            name=f"train-{time.time_ns()}",
            storage_path=str((config.folder / "ray").resolve()),
            # The driver starts Train again: it alone knows whether there was progress, and survives Train's controller.
            failure_config=FailureConfig(max_failures=0),
        ),
        datasets={"pairs": pair_dataset_factory(config, board)},
        # Locality would hold blocks back to place them better: an iteration's last ticket, which everybody waits for.
        dataset_config=DataConfig(execution_options=ExecutionOptions(preserve_order=True), enable_shard_locality=False),
    )
