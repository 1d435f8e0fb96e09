"""The scorers, by name. Imports nothing heavy: a scorer's module is loaded when that scorer is built."""

from __future__ import annotations

import difflib
import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rayalign.errors import ConfigError
from rayalign.rewards import sources
from rayalign.rewards.own import is_own, load_module
from rayalign.rewards.weights import LOCAL_PREFIX, Weights, is_local, local_damage, local_problem

if TYPE_CHECKING:
    from rayalign.config import RewardConfig
    from rayalign.rewards.protocol import Scorer

NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class ScorerFacts:
    """What a report, a validation or the sampler must know of a scorer without building it.

    The first four are required of a user's class, as attributes of these names (`path` aside); the others are not.
    """

    path: str  # module:attribute of the class, or of a function that makes one
    unit: str  # scale and range
    differentiable: bool  # answers `score_and_grad`
    needs_prompt: bool
    num_tokens: int | None = None  # of a prompt that it reads, the rest is cut; None: reads none, or says nothing
    licence: str = "not stated"  # of the default weights
    weights: tuple[Weights, ...] = ()  # what its options stand for by default
    runtime_env: Mapping[str, Any] = field(default_factory=dict)  # Ray's, if it must not run beside everything else
    default_options: Mapping[str, Any] = field(default_factory=dict)  # below those of the config


_COSINE = "cosine of text and image, in [-1, 1]"

SCORERS: dict[str, ScorerFacts] = {
    "pickscore": ScorerFacts(
        "rayalign.rewards.pickscore:PickScorer",
        "PickScore v1: logit, 100 x cosine of text and image; about 18 to 26",
        differentiable=True,
        needs_prompt=True,
        num_tokens=77,
        licence="MIT (its repository; the weights' page states none)",
        weights=(sources.PICKSCORE_MODEL, sources.PICKSCORE_PROCESSOR),
    ),
    "hpsv2": ScorerFacts(
        "rayalign.rewards.hps:HpsV2Scorer",
        "HPS v2.0: cosine of text and image, x1; about 0.2 to 0.35",
        differentiable=True,
        needs_prompt=True,
        num_tokens=77,
        licence="Apache-2.0",
        weights=(sources.HPS_V2,),
    ),
    "hpsv2.1": ScorerFacts(
        "rayalign.rewards.hps:HpsV21Scorer",
        "HPS v2.1: cosine of text and image, x1; about 0.15 to 0.4",
        differentiable=True,
        needs_prompt=True,
        num_tokens=77,
        licence="Apache-2.0",
        weights=(sources.HPS_V21,),
    ),
    "imagereward": ScorerFacts(
        "rayalign.rewards.imagereward:ImageRewardScorer",
        "ImageReward v1.0, standardised; about -2.3 to 2",
        differentiable=True,
        needs_prompt=True,
        num_tokens=35,
        licence="Apache-2.0",
        weights=(sources.IMAGEREWARD_MODEL, sources.IMAGEREWARD_TOKENIZER),
    ),
    "aesthetic": ScorerFacts(
        "rayalign.rewards.aesthetic:AestheticScorer",
        "LAION aesthetic v2: predicted rating, 1 to 10; about 3 to 7.5",
        differentiable=True,
        needs_prompt=False,
        licence="Apache-2.0 (head), MIT (CLIP)",
        weights=(sources.AESTHETIC_MODEL, sources.AESTHETIC_HEAD),
    ),
    "clip": ScorerFacts(
        "rayalign.rewards.clip:ClipScorer",
        _COSINE,
        differentiable=True,
        needs_prompt=True,
        num_tokens=77,
        licence="MIT",
        weights=(sources.CLIP_MODEL, sources.CLIP_PRETRAINED),
    ),
    "toy-clip": ScorerFacts(
        "rayalign.rewards.clip:toy_clip",
        _COSINE,
        differentiable=True,
        needs_prompt=True,
        num_tokens=20,
        licence="Apache-2.0",
    ),
    "jpeg": ScorerFacts(
        "rayalign.rewards.jpeg:JpegScorer",
        "minus kB (1000 bytes) as JPEG of quality 95",
        differentiable=False,
        needs_prompt=False,
        licence="no weights",
    ),
    "jpeg-large": ScorerFacts(
        "rayalign.rewards.jpeg:JpegLargeScorer",
        "kB (1000 bytes) as JPEG of quality 95",
        differentiable=False,
        needs_prompt=False,
        licence="no weights",
    ),
    "stub": ScorerFacts(
        "rayalign.rewards.stub:StubScorer",
        "mean pixel value: brightness in [0, 1], or red in [-1, 1]",
        differentiable=True,
        needs_prompt=False,
        licence="no weights",
    ),
}

# Scorers that also embed prompts and images in one space (`embed_prompts`, `embed_images`).
EMBEDDERS = ("clip", "pickscore", "hpsv2", "hpsv2.1", "toy-clip")


def scorer_facts(name: str) -> ScorerFacts:
    """Facts of a scorer in the table, or of a user's own class named `my_package.my_module:MyScorer`.

    Only the latter imports anything.

    Raises:
        ConfigError: unknown name; module or class not found; class that is not a scorer.
    """
    if name in SCORERS:
        return SCORERS[name]
    if is_own(name):
        return _own_facts(name)
    nearest = difflib.get_close_matches(name, SCORERS, n=1, cutoff=0.0)
    raise ConfigError(
        "rewards.scorer",
        name,
        f"no such scorer; did you mean {nearest[0]}? Set one of {', '.join(SCORERS)}, or your own class as "
        f"my_package.my_module:MyScorer",
    )


def check_scorer(name: str, options: Mapping[str, Any] = NOTHING) -> None:
    """Whether it can be built, as far as can be told before any actor starts.

    Raises:
        ConfigError: where `scorer_facts` would; an option names a file or folder of this machine that is not there,
            or is not whole.
    """
    for weights in scorer_facts(name).weights:
        value = options.get(weights.option)
        if not isinstance(value, str) or not is_local(value):
            continue
        if problem := local_problem(value, weights.files) or local_damage(value, weights.files):
            raise ConfigError(f"rewards.{name}.options.{weights.option}", value, problem)


def absolute_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """The same options with every local path of weights made absolute: actors have another working folder."""
    absolute = dict(options)
    for weights in scorer_facts(name).weights:
        value = options.get(weights.option)
        if isinstance(value, str) and is_local(value):
            prefix = LOCAL_PREFIX if value.startswith(LOCAL_PREFIX) else ""
            absolute[weights.option] = prefix + str(Path(value.removeprefix(prefix)).expanduser().resolve())
    return absolute


def scorer_stamp(reward: RewardConfig) -> str:
    """Another one once what `reward` names has changed: the code of a user's class, or weights of this machine."""
    stamp = hashlib.blake2b(digest_size=8)
    if is_own(reward.scorer):
        code = load_module(reward.scorer).__file__
        stamp.update(Path(code).read_bytes() if code else b"")
    for weights in scorer_facts(reward.scorer).weights:
        value = reward.options.get(weights.option)
        if isinstance(value, str) and is_local(value):
            path = Path(value.removeprefix(LOCAL_PREFIX)).expanduser()
            for file in sorted(path.iterdir()) if path.is_dir() else [path]:
                stamp.update(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}\n".encode())
    return stamp.hexdigest()


def build_scorer(reward: RewardConfig) -> Scorer:
    """The scorer, weights loaded.

    Raises:
        ConfigError: unknown scorer, unknown option, or an option's value that it refuses.
    """
    facts = scorer_facts(reward.scorer)
    factory = _resolve(reward.scorer, facts.path)
    field = f"rewards.{reward.scorer}.options"
    known = _option_names(factory)
    options = {**facts.default_options, **reward.options}
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        fix = f"{error}; the options are {', '.join(known)}" if known else f"{error}; it takes no options"
        raise ConfigError(field, options, fix) from error
    try:
        return factory(**options)
    except ValueError as error:
        raise ConfigError(field, options, str(error)) from error


def _option_names(factory: Callable[..., Scorer]) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [name for name, option in inspect.signature(factory).parameters.items() if option.kind in kinds]


def _own_facts(name: str) -> ScorerFacts:
    """Facts of a user's own class, checked for what `Scorer` asks of it."""
    scorer = _resolve(name, name)
    if not callable(scorer):
        raise ConfigError("rewards.scorer", name, "is not a class; name one that makes a rayalign Scorer")
    if missing := missing_parts(scorer):
        raise ConfigError("rewards.scorer", name, f"lacks {', '.join(missing)} (see rayalign.rewards.protocol.Scorer)")
    for part in ("runtime_env", "default_options"):
        value = getattr(scorer, part, NOTHING)
        if not isinstance(value, Mapping):
            raise ConfigError("rewards.scorer", name, f"{part} is a {type(value).__name__}; set it to a dict")
    stated = {part.name: getattr(scorer, part.name) for part in fields(ScorerFacts)[1:] if hasattr(scorer, part.name)}
    return ScorerFacts(path=name, **stated)


def missing_parts(scorer: object) -> list[str]:
    """What a scorer, or a class of one, lacks of the attributes and methods that `Scorer` asks for."""
    missing = [part for part in ("differentiable", "needs_prompt", "unit", "score") if not hasattr(scorer, part)]
    if getattr(scorer, "differentiable", False) and not hasattr(scorer, "score_and_grad"):
        missing.append("score_and_grad")
    return missing


def scorer_class(name: str) -> Callable[..., Scorer]:
    """The class of scorer `name`, or a function that makes one. Raises ConfigError as `scorer_facts`."""
    return _resolve(name, scorer_facts(name).path)


def _resolve(name: str, path: str) -> Callable[..., Scorer]:
    attribute = path.partition(":")[2]
    module = load_module(path)
    if not hasattr(module, attribute):
        known = [key for key in vars(module) if not key.startswith("_")]
        nearest = difflib.get_close_matches(attribute, known, n=1)
        hint = f"; did you mean {nearest[0]}?" if nearest else ""
        raise ConfigError("rewards.scorer", name, f"{module.__name__} has no {attribute!r}{hint}")
    return getattr(module, attribute)
