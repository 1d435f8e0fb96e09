"""The family SD 3, on its toy: what it tells the denoiser is what the pipeline itself does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from rayalign.models.conditioning import guide
from rayalign.models.sd3 import SD3, T5_TOKENS
from rayalign.toy import toy_path

torch.set_num_threads(1)

PROMPT = "a large red circle on a white ground"
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")


@pytest.fixture(scope="module")
def pipe() -> Any:
    loaded = SD3().load(str(toy_path("toy-sd3")), torch.float32)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@torch.no_grad()
def test_drawing_by_hand_is_drawing_with_the_pipeline(pipe: Any) -> None:
    """Ten steps with guidance, the loop written out here; the pipeline encodes its own prompt."""
    family, text = SD3(), SD3().encode(pipe, PROMPT)
    start = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    pipe.scheduler.set_timesteps(10)
    x = start
    denoiser = getattr(pipe, family.denoiser_part)
    for t in pipe.scheduler.timesteps.clone():
        negative, positive = (
            denoiser(
                **{family.latent_argument: x},
                timestep=t.expand(1),
                return_dict=False,
                **family.denoiser_inputs(text, without, 64, 64),
            )[0]
            for without in (True, False)
        )
        x = pipe.scheduler.step(guide(negative, positive, 4.0), t, x, return_dict=False)[0]
    length = pipe.tokenizer_3.model_max_length
    call = {"num_inference_steps": 10, "guidance_scale": 4.0, "output_type": "latent", "max_sequence_length": length}
    theirs = pipe(PROMPT, latents=start, **call).images
    torch.testing.assert_close(x, theirs, atol=1e-4, rtol=1e-4)


def test_a_prompt_has_the_tokens_of_clip_and_t5_and_both_pooled(pipe: Any) -> None:
    text = SD3().encode(pipe, PROMPT)
    # 16 tokens of CLIP and 16 of T5; 2 * 96 wide; pooled 64 of each CLIP.
    assert text.embeds.shape == text.negative_embeds.shape == (1, 16 + 16, 192)
    assert text.pooled is not None
    assert text.negative_pooled is not None
    assert text.pooled.shape == text.negative_pooled.shape == (1, 128)
    other = SD3().encode(pipe, "a small blue square on a black ground")
    assert (text.embeds != other.embeds).any()
    assert torch.equal(text.negative_embeds, other.negative_embeds)


@pytest.mark.parametrize("index", ["class", "null"])
def test_t5_may_be_left_out(tmp_path: Path, index: str) -> None:
    """Deleted from the folder, or said to be none by its model_index.json: zeros stand in for what it would say."""
    folder = shutil.copytree(toy_path("toy-sd3"), tmp_path / "model")
    for part in ("text_encoder_3", "tokenizer_3"):
        shutil.rmtree(folder / part)
    if index == "null":
        parts = json.loads((folder / "model_index.json").read_text())
        parts |= {"text_encoder_3": [None, None], "tokenizer_3": [None, None]}
        (folder / "model_index.json").write_text(json.dumps(parts))
    loaded = SD3().load(str(folder), torch.float32)
    assert loaded.text_encoder_3 is None
    text = SD3().encode(loaded, PROMPT)
    assert text.embeds.shape == (1, 16 + T5_TOKENS, 192)
    assert (text.embeds[:, 16:] == 0).all()
    assert (text.embeds[:, :16] != 0).any()


def test_required_parts_are_in_the_folder_and_leave_t5_out() -> None:
    assert all((toy_path("toy-sd3") / part).is_dir() for part in SD3.required)
    assert not set(SD3.required) & {"text_encoder_3", "tokenizer_3"}


def test_attention_is_all_that_the_lora_targets_name(pipe: Any) -> None:
    from torch import nn

    layers = {name for name, module in pipe.transformer.named_modules() if isinstance(module, nn.Linear)}
    attention = {name for name in layers if ".attn" in name}
    assert attention == {name for name in layers if name.endswith(tuple(f".{target}" for target in TARGETS))}
    # The last block has no words to hand on, so there is nothing to project.
    assert len(attention) == 3 * len(TARGETS) - 1


@pytest.mark.parametrize(
    ("dtype", "decodes_in"),
    [(torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32)],
)
def test_only_float16_is_too_small_for_the_vae(dtype: torch.dtype, decodes_in: torch.dtype) -> None:
    assert SD3().vae_dtype(dtype) == decodes_in
