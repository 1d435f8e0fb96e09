"""What FID and KID look at: pictures to features, by an extractor of the user's choice.

    clip       an open_clip image tower (`model`, `pretrained` as the scorer `clip` takes them)
    toy-clip   the CLIP that ships with the package
    inception  torchvision's Inception v3, pooled, from weights that the user has (`weights`)
    my_package.my_module:MyExtractor

Numbers of different extractors do not compare, so each has a name that a report prints. Shape letters: N or B
pictures, C H W channels, height, width, D features.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rayalign.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from rayalign.rewards.clip import ClipScorer

FIELD = "evaluation.features"
BATCH = 16
INCEPTION_FILE = "inception_v3_google-0cc3c7bd.pth"  # as torchvision names it in its cache
INCEPTION_SIDE = 299


class FeatureExtractor(Protocol):
    """Features of pictures, one row a picture, whatever the other pictures of the call."""

    name: str  # model, weights and scaling: what a number made with it is labelled with

    def __call__(self, images_BCHW: np.ndarray) -> np.ndarray:
        """float32 (B, 3, H, W) in [0, 1], any size -> float (B, D)."""
        ...


def extract(images_NHWC: np.ndarray, extractor: FeatureExtractor, batch: int = BATCH) -> np.ndarray:
    """uint8 (N, H, W, 3), as `ImageSet` holds them -> float64 (N, D).

    Raises:
        ValueError: not such pictures; features that are not (B, D), or not finite. A picture left out for that
            would make it another distribution.
    """
    if images_NHWC.dtype != np.uint8 or images_NHWC.ndim != 4 or images_NHWC.shape[-1] != 3:
        raise ValueError(f"images must be uint8 (N, H, W, 3), got {images_NHWC.dtype} {images_NHWC.shape}")
    if not len(images_NHWC):
        raise ValueError("no images; a distribution needs some")
    parts = []
    for start in range(0, len(images_NHWC), batch):
        images_BCHW = images_NHWC[start : start + batch].transpose(0, 3, 1, 2).astype(np.float32) / 255
        features_BD = np.asarray(extractor(images_BCHW), dtype=np.float64)
        if features_BD.ndim != 2 or len(features_BD) != len(images_BCHW):
            raise ValueError(f"{extractor.name} gave {features_BD.shape} for {len(images_BCHW)} images; give (B, D)")
        if not np.isfinite(features_BD).all():
            raise ValueError(f"{extractor.name} gave features that are not finite")
        parts.append(features_BD)
    return np.concatenate(parts)


class ClipFeatures:
    """Embeddings of a CLIP image tower, scaled to length sqrt(D).

    CLIP is trained on cosines, so an embedding's length carries no meaning; at sqrt(D) the kernel of KID,
    (x.y / D + 1)^3, is (cos + 1)^3.
    """

    def __init__(self, scorer: ClipScorer, name: str) -> None:
        import open_clip

        self._scorer = scorer
        cfg = open_clip.get_model_preprocess_cfg(scorer.model)  # the scorer has refused what `preprocess` cannot do
        size = cfg["size"]
        self._preprocessing: dict[str, Any] = {
            "target_HW": (size, size) if isinstance(size, int) else tuple(size),
            "mean": cfg["mean"],
            "std": cfg["std"],
            "fit": cfg.get("resize_mode", "shortest"),
        }
        self.name = f"{name}, unit embedding x sqrt(D)"

    def __call__(self, images_BCHW: np.ndarray) -> np.ndarray:
        import torch

        from rayalign.rewards.pixels import preprocess

        with torch.inference_mode():
            images = torch.from_numpy(images_BCHW).to(self._scorer.device)
            embedding_BD = self._scorer.model.encode_image(preprocess(images, **self._preprocessing), normalize=True)
            return embedding_BD.double().cpu().numpy() * embedding_BD.shape[1] ** 0.5


class InceptionFeatures:
    """The 2048 averages of torchvision's Inception v3 before its last layer.

    Not the TensorFlow network of published FIDs, whose weights and pooling differ: FIDs made with this one compare
    among themselves only. Pictures are squashed to 299 x 299, bicubic with antialias.

    Args:
        weights: a state dict of `torchvision.models.inception_v3` (.pth); its usual place in torch's cache where null.
        device: `cpu`, `cuda`, ...; `auto` takes a GPU where this process sees one.

    Raises:
        ValueError: no such file, or not such weights. Nothing is downloaded.
    """

    def __init__(self, weights: str | None = None, device: str = "auto") -> None:
        import torch

        path = Path(weights).expanduser() if weights else Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
        self._device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
        self._model = _inception(path).to(self._device)
        self.name = f"inception v3 of torchvision, {path.name}, pooled"

    def __call__(self, images_BCHW: np.ndarray) -> np.ndarray:
        import torch

        from rayalign.rewards.pixels import preprocess

        side, half = (INCEPTION_SIDE, INCEPTION_SIDE), (0.5, 0.5, 0.5)
        with torch.inference_mode():
            images = torch.from_numpy(images_BCHW).to(self._device)
            return self._model(preprocess(images, side, half, half, "squash")).double().cpu().numpy()


def _inception(path: Path) -> torch.nn.Module:
    import torch
    from torchvision.models import inception_v3

    if not path.is_file():
        raise ValueError(
            f"no Inception weights at {path}; put torchvision's {INCEPTION_FILE} there, name a file as option "
            f"`weights`, or take another extractor (clip)"
        )
    # transform_input is for pictures normalised the ImageNet way; ours come as the network was trained, in [-1, 1].
    model = inception_v3(weights=None, init_weights=False, transform_input=False)
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # a file of any other kind can raise anything
        raise ValueError(f"{path} is no state dict of torchvision's inception_v3: {error}") from error
    model.fc = torch.nn.Identity()
    return model.eval().requires_grad_(False)


def _clip(model: str = "ViT-H-14", pretrained: str | None = None, device: str = "auto") -> FeatureExtractor:
    from rayalign.rewards.clip import ClipScorer

    name = f"clip {model} {pretrained}" if pretrained else f"clip {model}"
    return ClipFeatures(ClipScorer(model=model, pretrained=pretrained, device=device), name)


def _toy_clip(device: str = "auto") -> FeatureExtractor:
    from rayalign.rewards.clip import toy_clip

    return ClipFeatures(toy_clip(device=device), "toy-clip")


EXTRACTORS: dict[str, Callable[..., FeatureExtractor]] = {
    "clip": _clip,
    "toy-clip": _toy_clip,
    "inception": InceptionFeatures,
}


def build_extractor(name: str, options: dict[str, Any] | None = None, field: str = FIELD) -> FeatureExtractor:
    """The extractor, weights loaded. `field` is the setting that errors name.

    Raises:
        ConfigError: unknown extractor, unknown option, an option's value that it refuses, or a user's class that
            cannot be imported or is no extractor.
    """
    options = options or {}
    factory = EXTRACTORS[name] if name in EXTRACTORS else _own(name, field)
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        takes = ", ".join(inspect.signature(factory).parameters) or "none"
        raise ConfigError(f"{field}.options", options, f"{error}; the options are: {takes}") from error
    try:
        extractor = factory(**options)
    except ValueError as error:
        raise ConfigError(field, name, str(error)) from error
    if not callable(extractor) or not isinstance(getattr(extractor, "name", None), str):
        raise ConfigError(field, name, "makes no FeatureExtractor: it needs a `name` and to be callable with images")
    return extractor


def check_extractor(name: str, options: dict[str, Any], group: str) -> None:
    """Built and let go: weights that are missing must stop a job now, not after its last picture is drawn.

    Raises ConfigError as `build_extractor` does, naming `<group>.extractor` or `<group>.options`.
    """
    # The driver's GPU, where it has one, is the actors'.
    on_cpu = {"device": "cpu"} if name in EXTRACTORS else {}
    try:
        build_extractor(name, options | on_cpu, group)
    except ConfigError as error:
        field = error.field if error.field.endswith(".options") else f"{group}.extractor"
        raise ConfigError(field, error.value, error.fix) from error


def _own(name: str, field: str) -> Callable[..., FeatureExtractor]:
    if ":" not in name:
        nearest = difflib.get_close_matches(name, EXTRACTORS, n=1, cutoff=0.0)[0]
        known = ", ".join(EXTRACTORS)
        fix = f"no such extractor; did you mean {nearest}? Set one of {known}, or my_package.my_module:MyExtractor"
        raise ConfigError(field, name, fix)
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # a user's module can raise anything while it is imported
        fix = f"importing {module_name or 'nothing'} failed with {type(error).__name__}: {error}"
        raise ConfigError(field, name, f"{fix}; put it on the path of driver and workers") from error
    if not callable(getattr(module, attribute, None)):
        raise ConfigError(field, name, f"{module_name} has no class {attribute!r}")
    return getattr(module, attribute)
