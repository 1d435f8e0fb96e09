"""A random ImageReward in the real checkpoint's format, and its scores by the package's own code.

Run by the interpreter of the scorer's environment, since only that one has the package:
`python imagereward_model.py FOLDER [gradient]` writes the model and `numbers.npz` into FOLDER.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from rayalign.rewards.imagereward import ImageRewardScorer, import_package

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "blue", "circle", "square", "##s"]
SHIFTS_B111 = np.array([0, 2, 5], dtype=np.uint8).reshape(3, 1, 1, 1)
PROMPTS = ["a red circle", "blue squares", "a " * 40 + "red square"]  # the last is cut before its end
# The vision tower is fixed by the package (ViT-L/16, 224 px); the text encoder is as small as its width of 768 allows.
MED_CONFIG = {
    "hidden_size": 768,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": len(WORDS) + 2,  # the package adds two tokens
    "max_position_embeddings": 40,
    "add_cross_attention": True,
}


def write_model(folder: Path) -> None:
    """`ImageReward.pt` and `med_config.json` as on the hub; BERT's vocabulary in a folder of its name there."""
    (folder / "bert-base-uncased").mkdir()
    (folder / "bert-base-uncased" / "vocab.txt").write_text("\n".join(WORDS))
    (folder / "med_config.json").write_text(json.dumps(MED_CONFIG))
    torch.manual_seed(0)
    model = own_model(folder)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # As initialised, neither image nor prompt would show in the score.
            if weight.ndim == 2 and ("attention" in name or name.startswith("mlp")):
                weight.normal_(std=1.2 * weight.shape[1] ** -0.5)
    torch.save(model.state_dict(), folder / "ImageReward.pt")


def own_model(folder: Path) -> Any:
    """As the package builds it. It asks for the name `bert-base-uncased`, which a folder of that name here answers."""
    os.chdir(folder)
    return import_package().ImageReward(med_config="med_config.json", device="cpu")


def own_scores(folder: Path, levels_BHWC: np.ndarray) -> np.ndarray:
    """uint8 images -> scores of each with the prompt of its place, by `inference_rank` from Pillow's pixels."""
    model = own_model(folder)
    model.load_state_dict(torch.load("ImageReward.pt", weights_only=True))
    model.eval()
    with torch.no_grad():
        answers = [
            model.inference_rank(prompt, [Image.fromarray(levels)])
            for prompt, levels in zip(PROMPTS, levels_BHWC, strict=True)
        ]
    return np.array([rewards for _, rewards in answers])


def scorer_numbers(folder: Path) -> dict[str, np.ndarray]:
    """Ours in this environment: eight together and alone, and the gradient beside a difference quotient in float64."""
    scorer = ImageRewardScorer(str(folder), str(folder / "bert-base-uncased"), device="cpu", chunk=2)
    noise = np.random.default_rng(2).random((8, 3, 230, 224), dtype=np.float32)
    images, prompts = 0.4 + 0.2 * noise, [PROMPTS[row % len(PROMPTS)] for row in range(8)]  # off the clamp
    few, few_prompts = images[:2], prompts[:2]
    scores, grad = scorer.score_and_grad(few, few_prompts)
    numbers = {
        "scores": scores,
        "no_grad": scorer.score(few, few_prompts),
        "together": scorer.score(images, prompts),
        "alone": np.concatenate([scorer.score(images[row : row + 1], prompts[row : row + 1]) for row in range(8)]),
        "constants": np.array([scorer.model.mean, scorer.model.std]),
    }
    direction = np.random.default_rng(3).standard_normal(few.shape)
    numbers["slope_float32"] = (grad.astype(np.float64) * direction).sum(axis=(1, 2, 3))
    scorer.model.double()
    exact = torch.from_numpy(few.astype(np.float64)).requires_grad_()
    (exact_grad,) = torch.autograd.grad(scorer.score_tensors(exact, few_prompts).sum(), exact)
    # The package's own differentiable score, of images that are preprocessed already.
    ids_BL, mask_BL = (torch.stack(parts) for parts in zip(*map(scorer.tokens, few_prompts), strict=True))
    own = scorer.model.score_gard(ids_BL, mask_BL, scorer.preprocessing(exact))[:, 0]
    (own_grad,) = torch.autograd.grad(own.sum(), exact)
    numbers |= {"own_differentiable": own.detach().numpy(), "own_grad": own_grad.numpy()}
    numbers["grad_float64"] = exact_grad.numpy()
    numbers["scores_float64"] = scorer.score_tensors(exact, few_prompts).detach().numpy()
    numbers["slope_float64"] = (exact_grad.numpy() * direction).sum(axis=(1, 2, 3))
    step = 1e-4
    with torch.no_grad():
        ahead, behind = (
            scorer.score_tensors(exact + sign * step * torch.from_numpy(direction), few_prompts) for sign in (1, -1)
        )
    return numbers | {"quotient": ((ahead - behind) / (2 * step)).numpy()}


def main(folder: Path, with_gradient: bool) -> None:
    torch.set_num_threads(1)
    write_model(folder)
    # From full contrast to nearly black: noise alone would score the same every time.
    square, other = (
        np.random.default_rng(seed).integers(0, 256, size=(3, *size, 3), dtype=np.uint8) >> SHIFTS_B111
        for seed, size in enumerate([(224, 224), (300, 260)])
    )
    numbers: dict[str, Any] = {"transformers": version("transformers"), "timm": version("timm")}
    numbers |= {"square": square, "other": other}
    numbers |= {"own_square": own_scores(folder, square), "own_other": own_scores(folder, other)}
    numbers |= scorer_numbers(folder) if with_gradient else {}
    np.savez(folder / "numbers.npz", **numbers)


if __name__ == "__main__":
    main(Path(sys.argv[1]), "gradient" in sys.argv[2:])
