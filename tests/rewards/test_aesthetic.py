from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor
from transformers import CLIPModel

from rayalign.rewards.aesthetic import AestheticScorer, load_head

# Beside the project where it was given; not part of it.
REAL_HEAD = next(
    (found for up in Path(__file__).parents if (found := up / "shared/data/sac+logos+ava1-l14-linearMSE.pth").exists()),
    Path("not here"),
)
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's


@pytest.fixture(params=["random", "real"])
def head(request: pytest.FixtureRequest, random_head: Path) -> Path:
    if request.param == "real" and not REAL_HEAD.exists():
        pytest.skip("the real head is not on this machine")
    return REAL_HEAD if request.param == "real" else random_head


def official(tiny_vision: Path, head: Path, levels: np.ndarray) -> np.ndarray:
    """The predictor as its repository describes it: OpenAI's preprocessing, embedding over norm, MLP in eval mode."""
    mlp = nn.Module()
    mlp.layers = nn.Sequential(
        *(nn.Linear(768, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2)),
        *(nn.Linear(128, 64), nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1)),
    )
    mlp.load_state_dict(torch.load(head, map_location="cpu", weights_only=True))
    steps = [Resize(32, InterpolationMode.BICUBIC), CenterCrop(32), ToTensor(), Normalize(MEAN, STD)]
    inputs = torch.stack([Compose(steps)(Image.fromarray(level)) for level in levels])
    with torch.no_grad():
        embedding = CLIPModel.from_pretrained(tiny_vision).eval().get_image_features(inputs).pooler_output.numpy()
        unit = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
        return mlp.eval().layers(torch.from_numpy(unit))[:, 0].numpy()


def test_equals_the_predictors_own_steps(tiny_vision: Path, head: Path, noisy_images: np.ndarray) -> None:
    scorer, at_size = AestheticScorer(str(tiny_vision), str(head), device="cpu"), noisy_images[:, :, :32, :32]
    for images, share in ((at_size, 1e-4), (noisy_images, 0.15)):  # Pillow rounds what it resizes
        levels = np.rint(images * 255).astype(np.uint8).transpose(0, 2, 3, 1)
        expected = official(tiny_vision, head, levels)
        np.testing.assert_allclose(scorer.score(images, []), expected, atol=share * expected.std())


def test_head_is_one_affine_map(head: Path) -> None:
    layers = load_head(head).double()
    with torch.no_grad():
        bias = layers(torch.zeros(1, 768, dtype=torch.float64))
        slope = layers(torch.eye(768, dtype=torch.float64)) - bias
        points = torch.randn(5, 768, dtype=torch.float64)
        torch.testing.assert_close(layers(points), points @ slope + bias)
    if head == REAL_HEAD:  # what is known of it
        assert bias.item() == pytest.approx(5.2366, abs=1e-4)
        assert slope.norm().item() == pytest.approx(17.9956, abs=1e-4)


def test_refuses_another_head(tiny_vision: Path, random_head: Path, tmp_path: Path) -> None:
    state = torch.load(random_head, weights_only=True)
    torch.save({key: value for key, value in state.items() if "layers.7" not in key}, tmp_path / "short.pth")
    with pytest.raises(ValueError, match=r"short.pth.*cannot be loaded.*set the state of an MLP with layers 0, 2, 4"):
        AestheticScorer(str(tiny_vision), str(tmp_path / "short.pth"), device="cpu")
    torch.save(state | {"layers.0.weight": torch.zeros(1024, 512)}, tmp_path / "narrow.pth")
    with pytest.raises(ValueError, match=r"takes 512 numbers, model .* gives 768; set the head that was trained on"):
        AestheticScorer(str(tiny_vision), str(tmp_path / "narrow.pth"), device="cpu")


def test_a_head_cannot_run_code(tiny_vision: Path, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"layers.0.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="cannot be loaded"):
        AestheticScorer(str(tiny_vision), str(tmp_path / "evil.pth"), device="cpu")
    assert not (tmp_path / "ran").exists()


def test_head_is_found_in_a_folder_and_in_the_cache(
    tiny_vision: Path, random_head: Path, make_tower: Callable, noisy_images: np.ndarray, tmp_path: Path, monkeypatch
) -> None:
    expected = make_tower("aesthetic").score(noisy_images, [])
    by_folder = AestheticScorer(str(tiny_vision), str(random_head.parent), device="cpu")
    np.testing.assert_array_equal(by_folder.score(noisy_images, []), expected)
    monkeypatch.setenv("RAYALIGN_CACHE", str(tmp_path))
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / random_head.name).write_bytes(random_head.read_bytes())
    np.testing.assert_array_equal(AestheticScorer(str(tiny_vision), device="cpu").score(noisy_images, []), expected)
