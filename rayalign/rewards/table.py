"""The scorers, by name. Imports nothing heavy: a scorer's module is loaded when that scorer is built."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rayalign.errors import ConfigError

if TYPE_CHECKING:
    from rayalign.config import RewardConfig
    from rayalign.rewards.protocol import Scorer


@dataclass(frozen=True)
class ScorerFacts:
    """What a report, a validation or the sampler must know of a scorer without building it."""

    path: str  # module:attribute of the class, or of a function that makes one
    unit: str  # scale and range
    differentiable: bool  # answers `score_and_grad`
    needs_prompt: bool


SCORERS: dict[str, ScorerFacts] = {
    "jpeg": ScorerFacts(
        "rayalign.rewards.jpeg:JpegScorer", "minus kB (1000 bytes) as JPEG of quality 95", False, False
    ),
    "clip": ScorerFacts("rayalign.rewards.clip:ClipScorer", "cosine of text and image, in [-1, 1]", True, True),
    "toy-clip": ScorerFacts("rayalign.rewards.clip:toy_clip", "cosine of text and image, in [-1, 1]", True, True),
    "stub": ScorerFacts(
        "rayalign.rewards.stub:StubScorer",
        "mean pixel value: brightness in [0, 1], or red in [-1, 1]",
        True,
        False,
    ),
}


def scorer_facts(name: str) -> ScorerFacts:
    """Facts of a scorer in the table, or of a user's own class named `my_package.my_module:MyScorer`.

    Only the latter imports anything.

    Raises:
        ConfigError: unknown name; module or class not found; class that is not a scorer.
    """
    if name in SCORERS:
        return SCORERS[name]
    if ":" in name:
        scorer = _load(name)
        return ScorerFacts(name, scorer.unit, scorer.differentiable, scorer.needs_prompt)
    nearest = difflib.get_close_matches(name, SCORERS, n=1, cutoff=0.0)
    raise ConfigError(
        "rewards.scorer",
        name,
        f"no such scorer; did you mean {nearest[0]}? Set one of {', '.join(SCORERS)}, or your own class as "
        f"my_package.my_module:MyScorer",
    )


def check_scorer(name: str) -> None:
    """Raises ConfigError where `scorer_facts` would: before any actor starts."""
    scorer_facts(name)


def build_scorer(reward: RewardConfig) -> Scorer:
    """The scorer, weights loaded.

    Raises:
        ConfigError: unknown scorer, unknown option, or an option's value that it refuses.
    """
    facts = scorer_facts(reward.scorer)
    factory = _resolve(reward.scorer, facts.path)
    field = f"rewards.{reward.scorer}.options"
    options = _option_names(factory)
    try:
        inspect.signature(factory).bind(**reward.options)
    except TypeError as error:
        fix = f"{error}; the options are {', '.join(options)}" if options else f"{error}; it takes no options"
        raise ConfigError(field, reward.options, fix) from error
    try:
        return factory(**reward.options)
    except ValueError as error:
        raise ConfigError(field, reward.options, str(error)) from error


def _option_names(factory: Callable[..., Scorer]) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [name for name, option in inspect.signature(factory).parameters.items() if option.kind in kinds]


def _load(name: str) -> Any:
    """A user's own class, checked for what `Scorer` asks of it."""
    scorer = _resolve(name, name)
    if not callable(scorer):
        raise ConfigError("rewards.scorer", name, "is not a class; name one that makes a rayalign Scorer")
    missing = [part for part in ("differentiable", "needs_prompt", "unit", "score") if not hasattr(scorer, part)]
    if getattr(scorer, "differentiable", False) and not hasattr(scorer, "score_and_grad"):
        missing.append("score_and_grad")
    if missing:
        raise ConfigError("rewards.scorer", name, f"lacks {', '.join(missing)} (see rayalign.rewards.protocol.Scorer)")
    return scorer


def _resolve(name: str, path: str) -> Callable[..., Scorer]:
    module_name, _, attribute = path.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module can raise anything while it is imported
        fix = f"importing {module_name or 'nothing'} failed with {type(error).__name__}: {error}"
        raise ConfigError("rewards.scorer", name, f"{fix}; put it on the path of driver and workers") from error
    if not hasattr(module, attribute):
        known = [key for key in vars(module) if not key.startswith("_")]
        nearest = difflib.get_close_matches(attribute, known, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ConfigError("rewards.scorer", name, f"{module_name} has no {attribute!r}{hint}")
    return getattr(module, attribute)
