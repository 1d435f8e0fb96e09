import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from rayalign.rewards.pixels import center_crop, clamp_straight_through, fitted_size, preprocess, resize

NO_SHIFT, NO_SCALE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


@pytest.mark.parametrize("size_HW", [(48, 40), (40, 49), (100, 67), (20, 31), (32, 32)])
def test_close_to_pillow_on_noise(size_HW: tuple[int, int]) -> None:
    levels = np.random.default_rng(1).integers(0, 256, size=(*size_HW, 3)).astype(np.uint8)
    by_pillow = Compose([Resize(32, InterpolationMode.BICUBIC), CenterCrop(32)])(Image.fromarray(levels))
    expected = np.asarray(by_pillow).transpose(2, 0, 1) / 255
    images = torch.from_numpy(levels.transpose(2, 0, 1)[None] / 255)
    actual = preprocess(images, (32, 32), NO_SHIFT, NO_SCALE)[0].numpy()
    assert np.abs(actual - expected).mean() < 1 / 255


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


def test_center_crop_takes_the_middle() -> None:
    images = torch.arange(5.0).expand(1, 3, 4, 5)
    assert center_crop(images, (4, 3))[0, 0, 0].tolist() == [1.0, 2.0, 3.0]


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
