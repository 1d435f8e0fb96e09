from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny
from torch import Tensor

from rayalign.models.pixels import decode_latents, encode_pixels
from rayalign.toy.shapes import draw_array, random_scene
from tests.toys import TOYS, model_of

TINY: dict[str, Any] = {
    "encoder_block_out_channels": (8, 8),
    "decoder_block_out_channels": (8, 8),
    "num_encoder_blocks": (1, 1),
    "num_decoder_blocks": (1, 1),
}


class Halving:
    """A VAE of one line: it decodes x to x / 2, and encodes back, with a posterior that is wide around it."""

    dtype = torch.float32

    def __init__(self, **config: Any) -> None:
        self.config = SimpleNamespace(**config)

    def decode(self, latents: Tensor, return_dict: bool) -> tuple[Tensor]:
        return (latents / 2,)

    def encode(self, images: Tensor) -> Any:
        posterior = SimpleNamespace(mode=lambda: 2 * images, sample=lambda: 2 * images + torch.randn_like(images))
        return SimpleNamespace(latent_dist=posterior)


@pytest.mark.parametrize("shift", [{}, {"shift_factor": None}, {"shift_factor": 0.25}])
def test_scale_and_shift_by_hand(shift: dict[str, Any]) -> None:
    vae = Halving(scaling_factor=0.5, **shift)
    by = shift.get("shift_factor") or 0.0
    latents = torch.tensor([[-0.5, 0.25]]).reshape(1, 2, 1, 1)
    # Divided by 0.5, shifted, halved by the VAE, and from [-1, 1] to [0, 1].
    expected = (latents / 0.5 + by) / 2 / 2 + 0.5
    assert torch.equal(decode_latents(vae, latents), expected)
    torch.testing.assert_close(encode_pixels(vae, expected), latents, atol=1e-6, rtol=0)


def test_the_mean_is_taken_and_not_a_draw() -> None:
    images = torch.rand((2, 3, 4, 4), generator=torch.Generator().manual_seed(0))
    vae = Halving(scaling_factor=1.0)
    assert torch.equal(encode_pixels(vae, images), encode_pixels(vae, images))


@pytest.mark.parametrize("path", TOYS)
def test_a_toys_pictures_survive_their_vae(path: str) -> None:
    model = model_of(path, ("policy",))
    draw = random.Random(0)
    drawn = np.stack([draw_array(random_scene(draw)) for _ in range(4)]) / 255
    pictures = torch.from_numpy(drawn.transpose(0, 3, 1, 2).astype(np.float32))
    latents = encode_pixels(model.pipe.vae, pictures)
    assert latents.shape == (4, *model.latent_shape)
    assert latents.dtype == torch.float32
    assert not latents.requires_grad
    error = (model.decode(latents) - pictures).abs().mean()
    # A picture of one colour each, the mean's, would be several times as far.
    assert error < (pictures - pictures.mean((2, 3), keepdim=True)).abs().mean() / 3


def test_a_tiny_autoencoder_has_no_posterior() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = AutoencoderTiny(**TINY).eval()
    images = torch.rand((1, 3, 16, 16), generator=torch.Generator().manual_seed(0))
    latents = encode_pixels(vae, images)
    assert torch.equal(latents, vae.encode(2 * images - 1).latents * vae.config.scaling_factor)
    assert decode_latents(vae, latents).shape == images.shape
