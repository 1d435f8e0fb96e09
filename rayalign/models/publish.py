"""Weights on their way to the rollout actors: checksum, and a canary that proves they bind where they should.

Peers shipped weights bound to nothing, or to the wrong modules, and trained on for days. Three things are checked on
arrival: the bytes (checksum), the names and shapes (`WeightSets.load`), and what the denoiser then does (canary).
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from rayalign.errors import WeightsError
from rayalign.models.text_to_image import TextToImage
from rayalign.models.weight_sets import WeightArrays
from rayalign.records import Canary, PublishedWeights

# The canary changes the weights by about this share, so that the first tiny update shows as clearly as the last big
# one, and a wrong binding cannot hide below rounding.
CANARY_STRENGTH = 0.2
# Largest allowed error of the change's effect, relative to it: fused against unfused, and other kernels, in each dtype.
CANARY_TOLERANCE = {torch.float32: 0.01, torch.bfloat16: 0.05, torch.float16: 0.05}
DIGEST_BYTES = 16
HASH_THREADS = 8


def checksum(arrays: WeightArrays) -> str:
    """blake2b over names, shapes, dtypes and bytes, in name order.

    Each array has a digest of its own, so that many threads share a whole model: one alone takes 8 s over SDXL's 10 GB.
    """
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    names = sorted(arrays)
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        for name, of_array in zip(names, pool.map(_digest, (arrays[name] for name in names)), strict=True):
            digest.update(f"{name}{arrays[name].shape}{arrays[name].dtype.str}".encode())
            digest.update(of_array)
    return digest.hexdigest()


def _digest(value: np.ndarray) -> bytes:
    plain = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    return hashlib.blake2b(plain.data, digest_size=DIGEST_BYTES).digest()


def publishable(model: TextToImage, version: int, arrays: WeightArrays) -> PublishedWeights:
    """What the trainer says of the weights that are its policy now: checksum, and its own canary answer."""
    factor = model.weights.canary_factor(CANARY_STRENGTH)
    base = model.canary("initial")
    with model.weights.amplified(factor):
        delta = model.canary("policy") - base
    size = sum(value.nbytes for value in arrays.values())
    return PublishedWeights(version, checksum(arrays), Canary(factor, base, delta), size)


def apply(model: TextToImage, published: PublishedWeights, arrays: WeightArrays) -> None:
    """Makes `arrays` the policy of `model`, and proves it.

    Raises WeightsError if bytes, names, shapes or the denoiser's answer differ from what the trainer published.
    """
    if checksum(arrays) != published.checksum:
        raise WeightsError(
            f"policy version {published.version} arrived damaged: its checksum is {checksum(arrays)}, published was "
            f"{published.checksum}"
        )
    model.weights.unfuse()
    base = _checked_base(model, published)
    model.weights.load("policy", arrays)
    _check_policy(model, published, base)
    if model.fuses_policy:
        model.weights.fuse()


def _checked_base(model: TextToImage, published: PublishedWeights) -> np.ndarray:
    """This model's answer before tuning. Raises WeightsError unless it is the trainer's."""
    if "initial" not in model.weights.names:
        # Overwritten by the versions before, the first of which was applied to the model as it was loaded.
        return published.canary.base
    base, tolerance = model.canary("initial"), CANARY_TOLERANCE[model.dtype]
    error = _relative(base - published.canary.base, published.canary.base)
    if error > tolerance:
        raise WeightsError(
            f"canary: this actor's base model is not the trainer's (relative difference {error:.3g}, allowed "
            f"{tolerance}); every node must load the same model files, dtype and library versions"
        )
    return base


def _check_policy(model: TextToImage, published: PublishedWeights, base: np.ndarray) -> None:
    """Raises WeightsError unless the policy changes `base` as the trainer's does.

    It answers by the very path that will sample: fused where the model fuses.
    """
    with model.weights.amplified(published.canary.amplification):
        if model.fuses_policy:
            model.weights.fuse()
        delta = model.canary("policy") - base
    error, tolerance = _relative(delta - published.canary.delta, published.canary.delta), CANARY_TOLERANCE[model.dtype]
    if error > tolerance:
        raise WeightsError(
            f"canary: policy version {published.version} acts on this actor's denoiser otherwise than on the trainer's "
            f"(relative difference {error:.3g}, allowed {tolerance}): its weights are bound to the wrong modules"
        )


def _relative(difference: np.ndarray, reference: np.ndarray) -> float:
    norm = float(np.linalg.norm(reference))
    return float(np.linalg.norm(difference)) / norm if norm > 0 else float(np.linalg.norm(difference))
