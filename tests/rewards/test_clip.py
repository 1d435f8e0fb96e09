import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from rayalign.rewards.clip import ClipScorer

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
    levels = np.rint(noisy_images * 255).astype(np.uint8).transpose(0, 2, 3, 1)
    with torch.no_grad():
        images = model.encode_image(torch.stack([transform(Image.fromarray(level)) for level in levels]))
        texts = model.encode_text(open_clip.get_tokenizer(name)(PROMPTS))
        expected = torch.nn.functional.cosine_similarity(images, texts).numpy()
    # Pillow rounds the resized image to uint8: half a level a pixel, hence not equal to the last bit.
    np.testing.assert_allclose(scorer.score(noisy_images, PROMPTS), expected, atol=2e-3)
    assert expected.std() > 0.01  # the tolerance says something


def test_bits_do_not_depend_on_the_company(scorer: ClipScorer, noisy_images: np.ndarray) -> None:
    together, grads = scorer.score_and_grad(noisy_images, PROMPTS)
    np.testing.assert_array_equal(scorer.score(noisy_images, PROMPTS), together)
    for row in range(8):
        alone, grad = scorer.score_and_grad(noisy_images[row : row + 1], PROMPTS[row : row + 1])
        np.testing.assert_array_equal(alone, together[row : row + 1])
        np.testing.assert_array_equal(grad, grads[row : row + 1])
    order = [5, 2, 7, 0, 1, 6, 3, 4]
    shuffled = scorer.score(noisy_images[order], [PROMPTS[row] for row in order])
    np.testing.assert_array_equal(shuffled, together[order])
    eleven = scorer.score(np.concatenate([noisy_images, noisy_images[:3]]), PROMPTS + PROMPTS[:3])
    np.testing.assert_array_equal(eleven, np.concatenate([together, together[:3]]))


def test_gradient_equals_finite_differences(tiny_clip_folder: Path, noisy_images: np.ndarray) -> None:
    own = ClipScorer(model=f"local-dir:{tiny_clip_folder}", device="cpu", chunk=2)
    # Away from 0 and 1: the clamp's gradient is straight-through on purpose, its difference quotient is not.
    # One in four rather than noise at full contrast, so that bicubic does not overshoot either.
    images = 0.4 + 0.2 * noisy_images[:2]
    _, grad = own.score_and_grad(images, PROMPTS[:2])
    text = torch.stack([own.encode_text(prompt) for prompt in PROMPTS[:2]]).double()
    own.model.double()
    direction = torch.from_numpy(np.random.default_rng(2).standard_normal(images.shape))
    exact, step = torch.from_numpy(images).double(), 1e-4
    with torch.no_grad():
        ahead, behind = (own.similarity(exact + sign * step * direction, text) for sign in (1, -1))
    expected = ((ahead - behind) / (2 * step)).numpy()
    actual = (grad.astype(np.float64) * direction.numpy()).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(actual, expected, rtol=1e-3)  # float32 gradient against a float64 quotient


def test_text_tower_runs_once_for_each_distinct_prompt(tiny_clip_folder: Path, noisy_images: np.ndarray) -> None:
    own = ClipScorer(model=f"local-dir:{tiny_clip_folder}", device="cpu")
    for _ in range(3):
        own.score(noisy_images, PROMPTS)
    assert own.num_text_runs == 7  # one of the 8 prompts stands twice


def test_following_the_gradient_raises_the_score(scorer: ClipScorer, noisy_images: np.ndarray) -> None:
    before, grad = scorer.score_and_grad(noisy_images, PROMPTS)
    after = scorer.score(np.clip(noisy_images + 0.02 * np.sign(grad), 0, 1).astype(np.float32), PROMPTS)
    assert (after > before).all()
    assert grad.shape == noisy_images.shape
    assert grad.dtype == np.float32


def test_frozen_and_in_eval_mode(scorer: ClipScorer) -> None:
    assert not scorer.model.training
    assert not any(parameter.requires_grad for parameter in scorer.model.parameters())


def test_no_images_no_scores(scorer: ClipScorer) -> None:
    none = np.zeros((0, 3, 32, 32), dtype=np.float32)
    assert scorer.score(none, []).shape == (0,)
    assert scorer.score_and_grad(none, [])[1].shape == none.shape


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
        ({"chunk": 0}, "chunk = 0"),
    ],
)
def test_says_what_it_cannot_load(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClipScorer(device="cpu", **options)


def test_one_prompt_for_each_image(scorer: ClipScorer, noisy_images: np.ndarray) -> None:
    with pytest.raises(ValueError, match="8 images but 1 prompts"):
        scorer.score(noisy_images, ["red"])
