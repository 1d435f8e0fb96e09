"""Run by test_export.py in a process of its own: what a user of plain diffusers does with an exported policy.

draw_with_diffusers.py <model folder> <lora folder, or none> <prompts.json> <out.npy>
"""

import json
import sys
from pathlib import Path

import diffusers
import numpy as np
import torch

torch.set_num_threads(1)
base, lora, prompts, out = sys.argv[1:]
pipe = diffusers.DiffusionPipeline.from_pretrained(base)
if isinstance(pipe, diffusers.StableDiffusion3Pipeline):
    # The toy's T5 is shorter than the 256 tokens that the pipeline pads to.
    call = {"max_sequence_length": min(256, pipe.tokenizer_3.model_max_length)}
else:
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    call = {"eta": 1.0}
pipe.set_progress_bar_config(disable=True)
if lora != "none":
    pipe.load_lora_weights(lora)
images = [
    pipe(
        prompt,
        num_inference_steps=20,
        guidance_scale=5.0,
        generator=[torch.Generator().manual_seed(seed)],
        output_type="np",
        **call,
    ).images[0]
    for prompt, seed in json.loads(Path(prompts).read_text())
]
np.save(out, np.stack(images))
assert not [name for name in sys.modules if name.partition(".")[0] == "rayalign"], "rayalign was imported"
