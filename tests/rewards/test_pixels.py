from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from open_clip.transform import image_transform
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize, ToTensor
from torchvision.transforms import functional as vision
from transformers import CLIPImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from rayalign.rewards.pixels import (
    Preprocessing,
    center_crop,
    clamp_straight_through,
    fitted_size,
    pad_black,
    preprocess,
    resize,
)

TINY_MEAN, TINY_STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)  # as conftest.py writes them
NO_SHIFT, NO_SCALE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


@pytest.mark.parametrize("size_HW", [(48, 40), (40, 49), (100, 67), (20, 31), (32, 32)])
def test_close_to_pillow_on_noise(size_HW: tuple[int, int]) -> None:
    levels = np.random.default_rng(1).integers(0, 256, size=(*size_HW, 3)).astype(np.uint8)
    by_pillow = Compose([Resize(32, InterpolationMode.BICUBIC), CenterCrop(32)])(Image.fromarray(levels))
    expected = np.asarray(by_pillow).transpose(2, 0, 1) / 255
    images = torch.from_numpy(levels.transpose(2, 0, 1)[None] / 255)
    actual = preprocess(images, (32, 32), NO_SHIFT, NO_SCALE)[0].numpy()
    assert np.abs(actual - expected).mean() < 1 / 255


# Noise is the hardest picture to resize. 832 leaves an odd surplus to crop; 1021 x 763 nothing even.
@pytest.mark.parametrize("size_HW", [(1024, 1024), (1024, 832), (768, 1024), (1021, 763), (224, 180), (100, 300)])
class TestOfficialPreprocessing:
    """Ours at 224 within 1/255 of what each scorer's own code makes of the same uint8 image."""

    def test_openai_clip(self, size_HW: tuple[int, int]) -> None:
        official = Compose([Resize(224, InterpolationMode.BICUBIC), CenterCrop(224), ToTensor()])
        assert difference(Preprocessing((224, 224)), official, size_HW) < 1 / 255

    @pytest.mark.parametrize("kind", [CLIPImageProcessor, CLIPImageProcessorPil])
    def test_transformers(self, size_HW: tuple[int, int], kind: type) -> None:
        processor = kind(do_normalize=False)
        ours = Preprocessing((224, 224), odd_crop="floor")
        official = lambda image: processor(image, return_tensors="pt")["pixel_values"][0]  # noqa: E731
        assert difference(ours, official, size_HW) < 1 / 255

    def test_open_clip(self, size_HW: tuple[int, int]) -> None:
        official = image_transform(224, is_train=False, mean=NO_SHIFT, std=NO_SCALE)
        assert difference(Preprocessing((224, 224)), official, size_HW) < 1 / 255

    def test_hpsv2(self, size_HW: tuple[int, int]) -> None:
        ours = Preprocessing((224, 224), fit="longest", keep_overshoot=True)
        by_pillow = image_transform(224, is_train=False, mean=NO_SHIFT, std=NO_SCALE, resize_mode="longest")
        assert difference(ours, by_pillow, size_HW) < 1 / 255
        assert difference(ours, longest_as_tensor, size_HW) < 1e-6  # its own code resizes the tensor


# What the class above compares, at the tiny towers' sizes; HPS's own is in test_hps.py, ImageReward's in its file.
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("clip", Preprocessing((32, 32), TINY_MEAN, TINY_STD)),  # open_clip's folder says mean and std
        ("pickscore", Preprocessing((32, 32), TINY_MEAN, TINY_STD, odd_crop="floor")),
        ("hpsv2.1", Preprocessing((56, 56), fit="longest", keep_overshoot=True)),
        ("aesthetic", Preprocessing((32, 32))),
    ],
)
def test_each_scorer_takes_one_that_is_compared(make_tower: Callable, name: str, expected: Preprocessing) -> None:
    found = make_tower(name).preprocessing
    assert replace(found, mean=tuple(found.mean), std=tuple(found.std)) == expected


def difference(ours: Preprocessing, official: Callable, size_HW: tuple[int, int]) -> float:
    """Mean over all pixels, in [0, 1]."""
    levels = np.random.default_rng(1).integers(0, 256, size=(*size_HW, 3)).astype(np.uint8)
    images = torch.from_numpy(levels.transpose(2, 0, 1)[None].astype(np.float32) / 255)
    actual = replace(ours, mean=NO_SHIFT, std=NO_SCALE)(images)[0]
    expected = official(Image.fromarray(levels))
    assert actual.shape == expected.shape == (3, 224, 224)
    return float((actual - expected).abs().mean())


def longest_as_tensor(image: Image.Image) -> torch.Tensor:
    """The steps that HPSv2's repository describes, by torchvision."""
    tensor = ToTensor()(image)
    scale = 224 / max(tensor.shape[1:])
    tensor = vision.resize(tensor, [round(side * scale) for side in tensor.shape[1:]], InterpolationMode.BICUBIC)
    surplus_h, surplus_w = 224 - tensor.shape[1], 224 - tensor.shape[2]
    left, top = surplus_w // 2, surplus_h // 2
    return vision.pad(tensor, [left, top, surplus_w - left, surplus_h - top])


def test_without_antialias_it_would_not_be_close() -> None:
    levels = np.random.default_rng(1).integers(0, 256, size=(100, 100, 3)).astype(np.uint8)
    expected = np.asarray(Image.fromarray(levels).resize((32, 32), Image.Resampling.BICUBIC)).transpose(2, 0, 1) / 255
    images = torch.from_numpy(levels.transpose(2, 0, 1)[None] / 255)
    aliased = torch.nn.functional.interpolate(images, (32, 32), mode="bicubic").clamp(0, 1)[0].numpy()
    assert np.abs(resize(images, (32, 32))[0].clamp(0, 1).numpy() - expected).mean() < 1 / 255
    assert np.abs(aliased - expected).mean() > 10 / 255


def test_fitted_size() -> None:
    assert fitted_size((48, 40), (32, 32), "shortest") == (38, 32)  # 32 * 48 / 40 = 38.4
    assert fitted_size((40, 48), (32, 32), "shortest") == (32, 38)
    assert fitted_size((20, 30), (32, 32), "shortest") == (32, 48)  # enlarges too
    assert fitted_size((40, 48), (32, 32), "squash") == (32, 32)
    assert fitted_size((48, 40), (32, 32), "longest") == (32, 27)  # 32 * 40 / 48 = 26.7
    assert fitted_size((10, 20), (32, 32), "longest") == (16, 32)
    assert fitted_size((1000, 1), (32, 32), "longest") == (32, 1)  # never none


def test_center_crop_takes_the_middle() -> None:
    images = torch.arange(5.0).expand(1, 3, 4, 5)
    assert center_crop(images, (4, 3))[0, 0, 0].tolist() == [1.0, 2.0, 3.0]


def test_half_a_pixel_of_a_crop() -> None:
    images = torch.arange(7.0).expand(1, 3, 7, 7)
    # 7 - 4 = 3 left over; half of it, 1.5, is 2 by `round` and 1 by floor
    assert center_crop(images, (4, 4), "round")[0, 0, 0].tolist() == [2.0, 3.0, 4.0, 5.0]
    assert center_crop(images, (4, 4), "floor")[0, 0, 0].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_black_is_put_around() -> None:
    padded = pad_black(torch.ones(1, 3, 1, 2), (2, 5))
    assert padded[0, 0].tolist() == [[0, 1, 1, 0, 0], [0, 0, 0, 0, 0]]  # the odd ones at the bottom and the right


def test_overshoot_is_kept_on_request() -> None:
    edge = torch.zeros(1, 3, 8, 8)
    edge[..., 4:] = 1.0
    clamped, kept = (
        preprocess(edge, (16, 16), NO_SHIFT, NO_SCALE, "longest", keep_overshoot=keep) for keep in (False, True)
    )
    assert (clamped.min(), clamped.max()) == (0.0, 1.0)
    assert kept.min() < -0.01
    assert kept.max() > 1.01


def test_clamp_is_exact_forward_and_absent_backward() -> None:
    values = torch.tensor([-0.3, 0.25, 1.7], requires_grad=True)
    clamped = clamp_straight_through(values)
    clamped.backward(torch.tensor([1.0, 2.0, 3.0]))
    assert clamped.tolist() == [0.0, 0.25, 1.0]
    assert values.grad is not None
    assert values.grad.tolist() == [1.0, 2.0, 3.0]


def test_normalises_by_channel() -> None:
    images = torch.full((1, 3, 2, 2), 0.5)
    out = preprocess(images, (2, 2), (0.5, 0.25, 0.0), (1.0, 0.5, 0.25))
    assert out[0, :, 0, 0].tolist() == [0.0, 0.5, 2.0]  # (0.5 - mean) / std


def test_refuses_another_shape() -> None:
    with pytest.raises(ValueError, match="batch, 3, height, width"):
        preprocess(torch.zeros(3, 8, 8), (4, 4), NO_SHIFT, NO_SCALE)
