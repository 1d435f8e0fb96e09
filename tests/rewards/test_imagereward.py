"""Quick tests on a stand-in for the package; slow ones on the real one, in its own environment.

The stand-in has the package's files and names, and a model of a few thousand weights.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Normalize, Resize, ToTensor

from rayalign.rewards.environments import python_of
from rayalign.rewards.imagereward import ImageRewardScorer
from rayalign.rewards.pixels import CLIP_MEAN, CLIP_STD, Preprocessing
from rayalign.rewards.protocol import Scorer
from rayalign.rewards.testing import check_scorer_conforms

PROMPTS = ["a red circle", "a blue square", "circle", "a red circle", "blue", "a", "red square", "blue circle"]
WORDS = ["[PAD]", "[UNK]", "a", "red", "blue", "circle", "square"]

PACKAGE = {
    "__init__.py": "raise ImportError('the fine-tuning script wants datasets and diffusers')",
    "models/__init__.py": "raise ImportError('the other scores want clip')",
    "models/BLIP/__init__.py": "",
    "models/BLIP/blip.py": """
from pathlib import Path
import torch

class Text(dict):
    input_ids = property(lambda self: self["input_ids"])
    attention_mask = property(lambda self: self["attention_mask"])
    def to(self, device):
        return self

class BertTokenizer:
    def __init__(self, words):
        self.words = words
    def __len__(self):
        return len(self.words)
    @classmethod
    def from_pretrained(cls, source):
        if not (Path(source) / "vocab.txt").exists():
            raise OSError(f"no network to ask for {source}")
        return cls((Path(source) / "vocab.txt").read_text().split())
    def __call__(self, prompt, padding, truncation, max_length, return_tensors):
        assert (padding, truncation, return_tensors) == ("max_length", True, "pt")
        ids = [self.words.index(word) if word in self.words else 1 for word in prompt.split()][:max_length]
        ids += [0] * (max_length - len(ids))
        return Text(input_ids=torch.tensor([ids]), attention_mask=(torch.tensor([ids]) > 0).long())
""",
    "ImageReward.py": """
import json
from types import SimpleNamespace
import torch
from torch import nn
from .models.BLIP import blip

class VisionTransformer(nn.Conv2d):
    def forward(self, image):
        return super().forward(image).tanh().flatten(2).transpose(1, 2)

class BertModel(nn.Embedding):
    def forward(self, ids, attention_mask, encoder_hidden_states, encoder_attention_mask, return_dict):
        assert return_dict and encoder_attention_mask.shape == encoder_hidden_states.shape[:2]
        text = (super().forward(ids) * attention_mask[..., None]).sum(dim=1, keepdim=True)
        seen = (encoder_hidden_states * encoder_attention_mask[..., None]).mean(dim=1, keepdim=True)
        return SimpleNamespace(last_hidden_state=seen * (1 + text))

class ImageReward(nn.Module):
    def __init__(self, med_config, device="cpu"):
        super().__init__()
        config = json.load(open(med_config))
        self.blip = nn.Module()
        self.blip.tokenizer = blip.BertTokenizer.from_pretrained("bert-base-uncased")
        self.blip.visual_encoder = VisionTransformer(3, 16, 32, 32)
        self.blip.text_encoder = BertModel(config["vocab_size"], 16)
        self.blip.text_encoder.config = SimpleNamespace(**config)
        self.blip.vision_proj = nn.Linear(2, 2)
        self.mlp = nn.Linear(16, 1)
        self.mean, self.std = 0.25, 2.0
""",
}


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Folder of a random model's files; the stand-in can be imported meanwhile."""
    for name, source in PACKAGE.items():
        file = tmp_path / "packages" / "ImageReward" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(source)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    (tmp_path / "med_config.json").write_text(json.dumps({"vocab_size": len(WORDS)}))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "ImageReward"]:
        del sys.modules[name]


@pytest.fixture
def scorer(stand_in: Path) -> ImageRewardScorer:
    torch.manual_seed(0)
    write_weights(stand_in)
    return load(stand_in, chunk=3)


def load(folder: Path, **options: Any) -> ImageRewardScorer:
    return ImageRewardScorer(**({"model": str(folder), "tokenizer": str(folder), "device": "cpu"} | options))


def random_weights() -> dict[str, torch.Tensor]:
    shapes = {
        "blip.visual_encoder.weight": (16, 3, 32, 32),
        "blip.visual_encoder.bias": (16,),
        "blip.text_encoder.weight": (len(WORDS), 16),
        "blip.vision_proj.weight": (2, 2),
        "blip.vision_proj.bias": (2,),
        "mlp.weight": (1, 16),
        "mlp.bias": (1,),
    }
    scales = {"blip.visual_encoder.weight": 0.03}
    return {name: scales.get(name, 1.0) * torch.randn(shape) for name, shape in shapes.items()}


def write_weights(folder: Path, without: str = "") -> None:
    weights = {name: weight for name, weight in random_weights().items() if not without or not name.startswith(without)}
    torch.save(weights, folder / "ImageReward.pt")


def test_equals_the_formula_on_pillows_preprocessing(scorer: ImageRewardScorer, stand_in: Path) -> None:
    """The stand-in's model written out, from its weights."""
    levels = np.random.default_rng(0).integers(0, 256, size=(8, 300, 250, 3), dtype=np.uint8)
    resized = Compose(
        [Resize(224, InterpolationMode.BICUBIC), CenterCrop(224), ToTensor(), Normalize(CLIP_MEAN, CLIP_STD)]
    )
    images = torch.stack([resized(Image.fromarray(level)) for level in levels])
    weights = torch.load(stand_in / "ImageReward.pt", weights_only=True)
    conv = (weights["blip.visual_encoder.weight"], weights["blip.visual_encoder.bias"])
    seen = torch.nn.functional.conv2d(images, *conv, stride=32).tanh().mean(dim=(2, 3))
    words = [[WORDS.index(word) for word in prompt.split()] for prompt in PROMPTS]
    text = torch.stack([weights["blip.text_encoder.weight"][ids].sum(dim=0) for ids in words])
    head = seen * (1 + text) @ weights["mlp.weight"][0] + weights["mlp.bias"]
    expected = ((head - 0.25) / 2.0).numpy()
    actual = scorer.score((levels.transpose(0, 3, 1, 2) / 255).astype(np.float32), PROMPTS)
    # Pillow rounds the resized image to uint8: half a level a pixel.
    np.testing.assert_allclose(actual, expected, atol=0.01 * expected.std())
    assert isinstance(scorer, Scorer)


def test_preprocesses_as_openais_clip(scorer: ImageRewardScorer) -> None:
    assert scorer.preprocessing == Preprocessing((224, 224), CLIP_MEAN, CLIP_STD)  # compared in test_pixels.py


def test_conforms(scorer: ImageRewardScorer) -> None:
    check_scorer_conforms(scorer)


def test_bfloat16_is_close(scorer: ImageRewardScorer, stand_in: Path, noisy_images: np.ndarray) -> None:
    exact = scorer.score(noisy_images, PROMPTS)
    rounded = load(stand_in, dtype="bfloat16").score(noisy_images, PROMPTS)
    assert rounded.dtype == np.float32
    assert not np.array_equal(rounded, exact)
    np.testing.assert_allclose(rounded, exact, atol=0.05 * exact.std())


def test_small_chunks_unless_told_otherwise(scorer: ImageRewardScorer, stand_in: Path) -> None:
    assert scorer.chunk == 3
    assert load(stand_in).chunk == 1  # a CPU's


def test_bits_do_not_depend_on_the_company(scorer: ImageRewardScorer, noisy_images: np.ndarray) -> None:
    together, grads = scorer.score_and_grad(noisy_images, PROMPTS)
    np.testing.assert_array_equal(scorer.score(noisy_images, PROMPTS), together)
    for row in range(8):
        alone, grad = scorer.score_and_grad(noisy_images[row : row + 1], PROMPTS[row : row + 1])
        np.testing.assert_array_equal(alone, together[row : row + 1])
        np.testing.assert_array_equal(grad, grads[row : row + 1])
    assert len(set(together.tolist())) == 8


def test_gradient_equals_finite_differences(scorer: ImageRewardScorer, noisy_images: np.ndarray) -> None:
    images = 0.4 + 0.2 * noisy_images[:2]  # off the clamp, whose gradient is straight-through on purpose
    _, grad = scorer.score_and_grad(images, PROMPTS[:2])
    scorer.model.double()
    direction = np.random.default_rng(2).standard_normal(images.shape)
    with torch.no_grad():
        ahead, behind = (
            scorer.score_tensors(torch.from_numpy(images + sign * 1e-4 * direction), PROMPTS[:2]) for sign in (1, -1)
        )
    expected = ((ahead - behind) / 2e-4).numpy()
    np.testing.assert_allclose((grad.astype(np.float64) * direction).sum(axis=(1, 2, 3)), expected, rtol=1e-3)
    exact = torch.from_numpy(images.astype(np.float64)).requires_grad_()
    (grad64,) = torch.autograd.grad(scorer.score_tensors(exact, PROMPTS[:2]).sum(), exact)
    np.testing.assert_allclose((grad64.numpy() * direction).sum(axis=(1, 2, 3)), expected, rtol=1e-6)


def test_text_is_tokenised_once_padded_and_cut(scorer: ImageRewardScorer) -> None:
    ids, mask = scorer.tokens("a red")
    assert ids.tolist() == [2, 3] + [0] * 33
    assert mask.tolist() == [1, 1] + [0] * 33
    assert scorer.tokens("a " * 50)[0].tolist() == [2] * 35
    asked: list[str] = []
    tokenizer = scorer.model.blip.tokenizer

    def recorded(prompt: str, **options: Any) -> Any:
        asked.append(prompt)
        return tokenizer(prompt, **options)

    scorer.model.blip.tokenizer = recorded
    images = np.zeros((8, 3, 224, 224), dtype=np.float32)
    for _ in range(2):
        scorer.score(images, PROMPTS)
    assert asked == ["a red circle", "a blue square", "circle", "blue", "a", "red square", "blue circle"]


def test_frozen_in_eval_mode_and_without_images(scorer: ImageRewardScorer) -> None:
    assert not scorer.model.training
    assert not any(parameter.requires_grad for parameter in scorer.model.parameters())
    none = np.zeros((0, 3, 32, 32), dtype=np.float32)
    assert scorer.score(none, []).shape == (0,)
    assert scorer.score_and_grad(none, [])[1].shape == none.shape
    with pytest.raises(ValueError, match="2 images but 1 prompts"):
        scorer.score(np.zeros((2, 3, 32, 32), dtype=np.float32), ["red"])


def test_says_what_it_cannot_load(stand_in: Path) -> None:
    with pytest.raises(ValueError, match=r"model = .*: the folder lacks ImageReward.pt; set a folder that holds"):
        load(stand_in)
    with pytest.raises(ValueError, match="chunk = 0: set it to at least 1"):
        load(stand_in, chunk=0)
    write_weights(stand_in, without="blip.vision_proj")  # which no score passes
    assert load(stand_in).model is not None
    write_weights(stand_in, without="mlp")  # random weights must never score
    with pytest.raises(ValueError, match=r"lacks 2 weights, mlp.weight the first"):
        load(stand_in)
    write_weights(stand_in)
    with pytest.raises(ValueError, match=r"tokenizer = './elsewhere': no such file or folder"):
        load(stand_in, tokenizer="./elsewhere")
    torch.save({"mlp.weight": Path}, stand_in / "ImageReward.pt")  # a pickle that would run code
    with pytest.raises(ValueError, match="cannot be loaded: Weights only load failed"):
        load(stand_in)
    write_weights(stand_in)
    (stand_in / "vocab.txt").write_text("\n".join(WORDS[:-1]))
    with pytest.raises(ValueError, match="has 6 tokens, the model 7; set its own"):
        load(stand_in)


def test_outside_its_environment_it_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rayalign scorers install imagereward"):
        load(tmp_path)
    assert "ImageReward" not in sys.modules


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, np.ndarray]]:
    """Numbers from the real package, whose environment is installed first if it is not there yet."""
    folder = tmp_path_factory.mktemp("imagereward")
    script = Path(__file__).with_name("imagereward_model.py")
    subprocess.run([str(python_of("imagereward")), str(script), str(folder), "gradient"], check=True)
    with np.load(folder / "numbers.npz") as numbers:
        yield dict(numbers)
    shutil.rmtree(folder)  # a gigabyte


@pytest.mark.slow
@pytest.mark.timeout(900)  # a ViT-L on a busy machine
def test_real_gradient_equals_finite_differences(real: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(real["slope_float64"], real["quotient"], rtol=1e-5)
    np.testing.assert_allclose(real["slope_float32"], real["quotient"], rtol=1e-3)
    assert (np.abs(real["quotient"]) > 0.01).all()


@pytest.mark.slow
@pytest.mark.timeout(900)  # a ViT-L on a busy machine
def test_real_scores_and_gradients_are_the_packages_differentiable_ones(real: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(real["scores_float64"], real["own_differentiable"], rtol=1e-9)
    np.testing.assert_allclose(real["grad_float64"], real["own_grad"], rtol=1e-6, atol=1e-12)


@pytest.mark.slow
@pytest.mark.timeout(900)  # a ViT-L on a busy machine
def test_real_bits_do_not_depend_on_the_company(real: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(real["scores"], real["no_grad"])
    np.testing.assert_array_equal(real["alone"], real["together"])
    assert real["together"].shape == (8,)


@pytest.mark.slow
@pytest.mark.timeout(900)  # a ViT-L on a busy machine
def test_the_package_standardises_by_the_published_constants(real: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(real["constants"], [0.16717362830052426, 1.0333394966054072])


@pytest.mark.slow
@pytest.mark.timeout(900)  # a ViT-L on a busy machine
def test_each_environment_keeps_its_versions(real: dict[str, np.ndarray]) -> None:
    assert (str(real["transformers"]), str(real["timm"])) == ("4.49.0", "0.6.13")
    assert int(version("transformers").partition(".")[0]) >= 5
    assert int(version("timm").partition(".")[0]) >= 1
    import transformers  # what is imported here, not only what is installed

    assert transformers.__version__ == version("transformers")
