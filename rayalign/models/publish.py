"""Weights on their way to the rollout actors: checksum, and a canary that proves they bind where they should.

Peers shipped weights bound to nothing, or to the wrong modules, and trained on for days. Three things are checked on
arrival: the bytes (checksum), the names and shapes (`WeightSets.load`), and what the denoiser then does (canary).
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from rayalign.errors import WeightsError
from rayalign.models.text_to_image import TextToImage
from rayalign.models.weight_sets import LoraArrays
from rayalign.records import Canary, PublishedWeights

# The canary's LoRA changes the base weights by about this share, so that the first tiny update shows as clearly as
# the last big one, and a wrong binding cannot hide below rounding.
CANARY_STRENGTH = 0.2
# Largest allowed error of the LoRA's effect, relative to it: fused against unfused, and other kernels, in each dtype.
CANARY_TOLERANCE = {torch.float32: 0.01, torch.bfloat16: 0.05, torch.float16: 0.05}


def checksum(arrays: LoraArrays) -> str:
    """blake2b over names, shapes, dtypes and bytes, in name order."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        value = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}{value.shape}{value.dtype.str}".encode())
        digest.update(value.tobytes())
    return digest.hexdigest()


def amplification(arrays: LoraArrays, base_norm: float) -> float:
    """Factor that makes the norm of all B A about CANARY_STRENGTH of the norm of the weights they are added to."""
    squares = 0.0
    for name in arrays:
        if name.endswith(".lora_A"):
            a, b = (arrays[f"{name[:-1]}{half}"].astype(np.float64) for half in "AB")
            a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)  # a convolution has (rank, in, k, k), (out, rank, 1, 1)
            squares += float(((b.T @ b) * (a @ a.T)).sum())  # ||B A||^2 without forming B A
    # A fresh LoRA has B = 0 and does nothing at any factor.
    return 1.0 if squares == 0 else CANARY_STRENGTH * base_norm / squares**0.5


def publishable(model: TextToImage, version: int, arrays: LoraArrays) -> PublishedWeights:
    """What the trainer says of the weights that are its policy now: checksum, and its own canary answer."""
    factor = amplification(arrays, model.base_norm())
    base = model.canary("initial")
    with model.weights.amplified(factor):
        delta = model.canary("policy") - base
    size = sum(value.nbytes for value in arrays.values())
    return PublishedWeights(version, checksum(arrays), Canary(factor, base, delta), size)


def apply(model: TextToImage, published: PublishedWeights, arrays: LoraArrays) -> None:
    """Makes `arrays` the policy of `model`, and proves it.

    Raises WeightsError if bytes, names, shapes or the denoiser's answer differ from what the trainer published.
    """
    if checksum(arrays) != published.checksum:
        raise WeightsError(
            f"policy version {published.version} arrived damaged: its checksum is {checksum(arrays)}, published was "
            f"{published.checksum}"
        )
    model.weights.unfuse()
    model.weights.load("policy", arrays)
    _check_canary(model, published)
    if model.fuses_policy:
        model.weights.fuse()


def _check_canary(model: TextToImage, published: PublishedWeights) -> None:
    """Raises WeightsError unless base and policy answer the fixed input as the trainer's do.

    The policy answers by the very path that will sample: fused where the model fuses.
    """
    tolerance = CANARY_TOLERANCE[model.dtype]
    base = model.canary("initial")
    error = _relative(base - published.canary.base, published.canary.base)
    if error > tolerance:
        raise WeightsError(
            f"canary: this actor's base model is not the trainer's (relative difference {error:.3g}, allowed "
            f"{tolerance}); every node must load the same model files, dtype and library versions"
        )
    with model.weights.amplified(published.canary.amplification):
        if model.fuses_policy:
            model.weights.fuse()
        delta = model.canary("policy") - base
    error = _relative(delta - published.canary.delta, published.canary.delta)
    if error > tolerance:
        raise WeightsError(
            f"canary: policy version {published.version} acts on this actor's denoiser otherwise than on the trainer's "
            f"(relative difference {error:.3g}, allowed {tolerance}): its LoRA is bound to the wrong modules"
        )


def _relative(difference: np.ndarray, reference: np.ndarray) -> float:
    norm = float(np.linalg.norm(reference))
    return float(np.linalg.norm(difference)) / norm if norm > 0 else float(np.linalg.norm(difference))
