"""How many of an iteration's pairs may be lost before the run stops."""

from __future__ import annotations

from rayalign.config import DatasetPairs, RunConfig
from rayalign.errors import RunStopped
from rayalign.records import BROKEN_STATUSES, LATENT_FAILED, STATUSES, UNSCORED_STATUSES

_UNSCORED = "see the scorer's error above, or raise service.max_failed_share"
_NO_LATENT = (
    "lost to latents that are NaN or infinite",
    "set model.dtype to bfloat16 or float32, or a lower train.lr in a new run, "
    "or raise guard.max_failed_latents",
)
_BROKEN = ("broken", "see the counts by reason in history.jsonl, mend pairs.path, or raise pairs.max_broken_share")


def check_shares(config: RunConfig, counts: dict[str, int]) -> None:
    """Raises RunStopped once too many of an iteration's pairs were lost."""
    drawn = sum(counts[f"pairs_{status}"] for status in STATUSES)
    broken = sum(counts[f"pairs_{status}"] for status in BROKEN_STATUSES)
    named = {
        status.removeprefix("score_").replace("_", " "): counts[f"pairs_{status}"] for status in UNSCORED_STATUSES
    }
    unscored = {reason: count for reason, count in named.items() if count}
    reasons = ", ".join(f"{count} {reason}" for reason, count in unscored.items())
    unscored_limit = (f"lost to failed scores ({reasons})", _UNSCORED)
    limits = [
        (sum(unscored.values()), config.service.max_failed_share, unscored_limit),
        (counts[f"pairs_{LATENT_FAILED}"], config.guard.max_failed_latents, _NO_LATENT),
    ]
    if isinstance(config.pairs, DatasetPairs):
        limits.append((broken, config.pairs.max_broken_share, _BROKEN))
    for lost, limit, (what, fix) in limits:
        share = lost / max(drawn, 1)
        if share > limit:
            raise RunStopped(f"{lost} of {drawn} pairs were {what} ({share:.0%}, allowed {limit:.0%}); {fix}")
