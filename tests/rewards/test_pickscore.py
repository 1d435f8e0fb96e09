import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel, CLIPProcessor

from rayalign.rewards.pickscore import PickScorer

PROMPTS = ["a red circle", "a blue square", "green", "a red ring", "circle", "blue", "a", "red square " * 9]


def official(tiny_pickscore: tuple[Path, Path], levels: np.ndarray) -> np.ndarray:
    """transformers' own forward on what its own processor makes of PIL images; one prompt an image."""
    model = CLIPModel.from_pretrained(tiny_pickscore[0]).eval()
    processor, tokenizer = (kind.from_pretrained(tiny_pickscore[1]) for kind in (CLIPImageProcessor, AutoTokenizer))
    images = processor([Image.fromarray(level) for level in levels], return_tensors="pt")
    texts = tokenizer(PROMPTS, padding=True, truncation=True, max_length=12, return_tensors="pt")
    with torch.no_grad():
        return model(**images, **texts).logits_per_image.diagonal().numpy()


def test_equals_transformers_own_forward_on_pil_images(
    make_tower: Callable, tiny_pickscore: tuple[Path, Path], noisy_images: np.ndarray
) -> None:
    scorer, at_size = make_tower("pickscore"), noisy_images[:, :, :32, :32]  # nothing to resize: nothing rounded
    for images, share in ((at_size, 1e-5), (noisy_images, 0.15)):
        levels = np.rint(images * 255).astype(np.uint8).transpose(0, 2, 3, 1)
        expected = official(tiny_pickscore, levels)
        np.testing.assert_allclose(scorer.score(images, PROMPTS), expected, atol=share * expected.std())


def test_padding_a_prompt_changes_nothing(make_tower: Callable) -> None:
    scorer = make_tower("pickscore")
    padded = scorer.tokenizer(["red", "a red circle"], padding=True, return_tensors="pt")
    with torch.no_grad():
        features = scorer.model.get_text_features(**padded).pooler_output[0]
    alone = torch.from_numpy(scorer.embed_prompts(["red"])[0])
    torch.testing.assert_close(torch.nn.functional.normalize(features, dim=0), alone)


def test_a_long_prompt_is_cut(make_tower: Callable) -> None:
    scorer = make_tower("pickscore")
    # 12 tokens with start and end: 10 words that are one token each, whatever follows
    long, longer = scorer.embed_prompts(["red " * 10, "red " * 10 + "blue circle"])
    np.testing.assert_array_equal(long, longer)


def test_takes_a_folder_that_has_it_all(
    tiny_pickscore: tuple[Path, Path], tmp_path: Path, make_tower: Callable, noisy_images: np.ndarray
) -> None:
    model, processor = tiny_pickscore
    whole = CLIPProcessor(CLIPImageProcessor.from_pretrained(processor), AutoTokenizer.from_pretrained(processor))
    whole.save_pretrained(tmp_path)  # writes processor_config.json, where the parts wrote preprocessor_config.json
    CLIPModel.from_pretrained(model).save_pretrained(tmp_path)
    own = PickScorer(str(tmp_path), str(tmp_path), device="cpu")
    expected = make_tower("pickscore").score(noisy_images, PROMPTS)
    np.testing.assert_array_equal(own.score(noisy_images, PROMPTS), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resample": 2}, r"by method 2 .* set one that resizes by bicubic"),
        ({"crop_size": {"height": 24, "width": 24}}, r"crops to \(24, 24\)"),
        (
            {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}},
            r"makes images of \(64, 64\), the model takes 32; set the processor that belongs to the model",
        ),
        ({"size": {"height": 32, "width": 32}}, "no processor of a CLIP"),
    ],
)
def test_refuses_a_processor_that_does_something_else(
    tiny_pickscore: tuple[Path, Path], tmp_path: Path, changes: dict, message: str
) -> None:
    model, processor = tiny_pickscore
    for file in processor.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings | changes))
    with pytest.raises(ValueError, match=message):
        PickScorer(str(model), str(tmp_path), device="cpu")


def test_missing_weights_are_not_drawn_at_random(tiny_pickscore: tuple[Path, Path], tmp_path: Path) -> None:
    model, processor = tiny_pickscore
    weights = load_file(model / "model.safetensors")
    (tmp_path / "config.json").write_bytes((model / "config.json").read_bytes())
    del weights["visual_projection.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"1 weights of a CLIPModel .* visual_projection.weight the first"):
        PickScorer(str(tmp_path), str(processor), device="cpu")
    save_file(
        weights | {"visual_projection.weight": torch.zeros(8, 8)}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ValueError, match=r"of another shape .* visual_projection.weight the first"):
        PickScorer(str(tmp_path), str(processor), device="cpu")
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="no CLIPModel could be loaded"):
        PickScorer(str(tmp_path), str(processor), device="cpu")


def test_says_which_folder_lacks_what(tiny_pickscore: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"model = .*lacks config.json, model.safetensors or pytorch_model.bin; set"):
        PickScorer(str(tmp_path), str(tiny_pickscore[1]))
    with pytest.raises(ValueError, match=r"processor = '/nowhere/it': no such file or folder; set a folder that holds"):
        PickScorer(str(tiny_pickscore[0]), "/nowhere/it")
