from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as vision

from rayalign.rewards.hps import HpsV2Scorer, HpsV21Scorer
from rayalign.rewards.pixels import Preprocessing

PROMPTS = ["a red circle", "a blue square", "green", "a red ring", "circle", "blue", "a", "word " * 100]
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's


def official(tiny_hps: tuple[str, Path], levels: np.ndarray) -> np.ndarray:
    """open_clip's own forward, as HPSv2's `score` calls it: state_dict into the architecture, features, diagonal."""
    architecture, folder = tiny_hps
    model = open_clip.create_model(architecture, output_dict=True).eval()
    checkpoint = torch.load(folder / "HPS_v2_compressed.pt", weights_only=True)
    model.load_state_dict(checkpoint["state_dict"])
    inputs = torch.stack([longest_side_to_56(Image.fromarray(level)) for level in levels])
    with torch.no_grad():
        answer = model(inputs, open_clip.get_tokenizer("ViT-H-14")(PROMPTS))
    return (answer["image_features"] @ answer["text_features"].T).diagonal().numpy()


def longest_side_to_56(image: Image.Image) -> torch.Tensor:
    tensor = vision.to_tensor(image)
    scale = 56 / max(tensor.shape[1:])
    tensor = vision.resize(tensor, [round(side * scale) for side in tensor.shape[1:]], InterpolationMode.BICUBIC)
    tall, wide = 56 - tensor.shape[1], 56 - tensor.shape[2]
    tensor = vision.pad(tensor, [wide // 2, tall // 2, wide - wide // 2, tall - tall // 2], fill=0)
    return vision.normalize(tensor, MEAN, STD)


@pytest.mark.parametrize("name", ["hpsv2", "hpsv2.1"])
@pytest.mark.parametrize("size_HW", [(48, 40), (40, 48), (90, 131), (56, 56)])
def test_equals_open_clips_own_forward(
    make_tower: Callable, tiny_hps: tuple[str, Path], size_HW: tuple[int, int], name: str
) -> None:
    levels = np.random.default_rng(5).integers(0, 256, size=(8, *size_HW, 3)).astype(np.uint8)
    expected = official(tiny_hps, levels)
    images = levels.transpose(0, 3, 1, 2).astype(np.float32) / 255
    np.testing.assert_allclose(make_tower(name).score(images, PROMPTS), expected, atol=1e-6)
    assert expected.std() > 0.05


def test_pads_with_black_and_crops_nothing(make_tower: Callable) -> None:
    scorer = make_tower("hpsv2")
    assert scorer.preprocessing == Preprocessing((56, 56), MEAN, STD, "longest", keep_overshoot=True)
    white = replace(scorer.preprocessing, mean=(0, 0, 0), std=(1, 1, 1))(torch.ones(1, 3, 56, 28))
    # 28 columns of black, 14 on each side of the picture
    assert white[0, 0, 0].tolist() == pytest.approx([0.0] * 14 + [1.0] * 28 + [0.0] * 14)


def test_versions_look_for_their_own_file(tiny_hps: tuple[str, Path]) -> None:
    architecture, folder = tiny_hps
    assert HpsV2Scorer(str(folder), architecture, device="cpu").unit.startswith("HPS v2.0")
    with pytest.raises(ValueError, match=r"weights = .* the folder lacks HPS_v2.1_compressed.pt; set a folder"):
        HpsV21Scorer(str(folder), architecture, device="cpu")


def test_weights_of_another_architecture_are_refused(tiny_hps: tuple[str, Path], tmp_path: Path) -> None:
    architecture, folder = tiny_hps
    state = torch.load(folder / "HPS_v2_compressed.pt", weights_only=True)["state_dict"]
    del state["visual.proj"]
    torch.save({"state_dict": state}, tmp_path / "short.pt")
    with pytest.raises(ValueError, match=r"visual\.proj"):
        HpsV2Scorer(str(tmp_path / "short.pt"), architecture, device="cpu")
    with pytest.raises(ValueError, match="could not load model 'RN50-quickgelu'"):
        HpsV2Scorer(str(folder), "RN50-quickgelu", device="cpu")
    (tmp_path / "text.pt").write_text("no weights")
    with pytest.raises(ValueError, match="could not load"):
        HpsV2Scorer(str(tmp_path / "text.pt"), architecture, device="cpu")


def test_a_checkpoint_cannot_run_code(tiny_hps: tuple[str, Path], tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"state_dict": {}, "extra": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="could not load"):
        HpsV2Scorer(str(tmp_path / "evil.pt"), tiny_hps[0], device="cpu")
    assert not (tmp_path / "ran").exists()
