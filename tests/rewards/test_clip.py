import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from rayalign.rewards.clip import ClipScorer

STD = (0.27, 0.26, 0.28)  # as conftest.py writes it
PROMPTS = ["a red circle", "a blue square", "green", "a red circle", "circle", "blue", "a", "red square"]


@pytest.fixture(scope="module")
def scorer(tiny_clip_folder: Path) -> ClipScorer:
    return ClipScorer(model=f"local-dir:{tiny_clip_folder}", device="cpu")


def test_equals_open_clip_on_pillows_preprocessing(
    scorer: ClipScorer, tiny_clip_folder: Path, noisy_images: np.ndarray
) -> None:
    name = f"local-dir:{tiny_clip_folder}"
    model, transform = open_clip.create_model_from_pretrained(name)
    model.eval()
    # Pillow rounds the resized image to uint8: half a level a pixel, hence not equal to the last bit.
    for pixels, tolerance in ((noisy_images[:, :, :32, :32], 1e-6), (noisy_images, 2e-3)):
        levels = np.rint(pixels * 255).astype(np.uint8).transpose(0, 2, 3, 1)
        with torch.no_grad():
            images = model.encode_image(torch.stack([transform(Image.fromarray(level)) for level in levels]))
            texts = model.encode_text(open_clip.get_tokenizer(name)(PROMPTS))
            expected = torch.nn.functional.cosine_similarity(images, texts).numpy()
        np.testing.assert_allclose(scorer.score(pixels, PROMPTS), expected, atol=tolerance)
        assert expected.std() > 0.01  # the tolerance says something


def test_longest_on_black(tiny_clip_folder: Path, tmp_path: Path, noisy_images: np.ndarray) -> None:
    for file in tiny_clip_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "open_clip_config.json").read_text())
    config["preprocess_cfg"] |= {"resize_mode": "longest", "fill_color": 0}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    transform = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}")[1]
    levels = np.rint(noisy_images * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    expected = torch.stack([transform(Image.fromarray(level)) for level in levels])
    actual = ClipScorer(model=f"local-dir:{tmp_path}", device="cpu").preprocessing(torch.from_numpy(noisy_images))
    assert (actual - expected).abs().mean() < 1 / 255 / min(STD)
    config["preprocess_cfg"] |= {"fill_color": 128}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="filling with 128; choose one with"):
        ClipScorer(model=f"local-dir:{tmp_path}", device="cpu")


def test_weights_from_a_local_file(
    scorer: ClipScorer, tiny_clip_folder: Path, tmp_path: Path, noisy_images: np.ndarray
) -> None:
    weights = str(tiny_clip_folder / "open_clip_model.safetensors")
    config = json.loads((tiny_clip_folder / "open_clip_config.json").read_text())["model_cfg"]
    config["text_cfg"]["hf_tokenizer_name"] = str(tiny_clip_folder)
    (tmp_path / "tiny-for-test.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "tiny-for-test.json")
    own = ClipScorer(model="tiny-for-test", pretrained=weights, device="cpu")
    # A bare weights file says nothing of mean and std: CLIP's own are taken, the folder has (nearly) these.
    np.testing.assert_allclose(own.score(noisy_images, PROMPTS), scorer.score(noisy_images, PROMPTS), atol=0.02)
    with pytest.raises(ValueError, match="could not load model 'RN50-quickgelu'"):  # another shape: not in part
        ClipScorer(model="RN50-quickgelu", pretrained=weights, device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "ViT-B-33"}, "ViT-B-33"),
        ({"model": "local-dir:/nowhere"}, "not found"),
        ({"model": "ViT-S-32-alt"}, "Required pretrained weights"),  # random weights must never score
        ({"model": "ViT-B-32", "pretrained": __file__}, "set model to a name"),  # no weights at all
    ],
)
def test_says_what_it_cannot_load(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipScorer(device="cpu", **options)
