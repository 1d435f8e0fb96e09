"""The annotate pool: CLIP embeddings of prompt, winner and loser, computed once a pair and carried in it.

A stage of its own between rollout and trainer, there only where the objective compares pairs with each other
(Diffusion-RPO): neither the rollout actors nor the train workers then hold a CLIP.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import pyarrow as pa
import torch

from rayalign.config import RewardConfig, RunConfig
from rayalign.models.pixels import decode_latents
from rayalign.models.vae import load_vae
from rayalign.pipeline.devices import prepare_actor
from rayalign.pipeline.scoring.shared_texts import SharedTexts
from rayalign.records import CAPTION, CLEAN, EMBEDDINGS, tensor_values
from rayalign.rewards.protocol import TextEncoder
from rayalign.rewards.table import build_scorer


class AnnotateActor:
    """Placed by Ray Data as one member of the annotate pool."""

    def __init__(self, config: RunConfig) -> None:
        self._device = prepare_actor(config)
        self._vae = load_vae(config, self._device)
        name, options = config.objective.embeds_with or ("", {})
        self._clip = build_scorer(RewardConfig(scorer=name, options=options))
        # Apart from the texts of a reward of the same name, whose options may be others.
        self._texts = SharedTexts(config.key, f"embedder {name}", cast(TextEncoder, self._clip))

    def __call__(self, pairs: pa.Table) -> pa.Table:
        """A ticket's pairs with `records.EMBEDDINGS` appended and the clean latents of step-wise rows taken away."""
        names = CLEAN if CLEAN[0] in pairs.column_names else ("winner", "loser")
        prompts = pairs[CAPTION if CAPTION in pairs.column_names else "prompt"].to_pylist()
        self._texts.fetch(prompts)
        embedded = [self._clip.embed_prompts(prompts)]  # type: ignore[attr-defined]
        embedded += [self._clip.embed_images(self._images(tensor_values(pairs[name]))) for name in names]  # type: ignore[attr-defined]
        for column, values in zip(EMBEDDINGS, embedded, strict=True):
            flat = pa.array(np.ascontiguousarray(values, dtype=np.float32).reshape(-1))
            pairs = pairs.append_column(column, pa.FixedSizeListArray.from_arrays(flat, values.shape[1]))
        return pairs.drop_columns([name for name in (*CLEAN, CAPTION) if name in pairs.column_names])

    @torch.no_grad()
    def _images(self, latents: np.ndarray) -> np.ndarray:
        """float32 (B, 3, H, W) in [0, 1]. A dropped row may hold NaN; it is drawn as grey and weighs nothing."""
        clean = torch.from_numpy(np.nan_to_num(latents, posinf=0.0, neginf=0.0)).to(self._device)
        return decode_latents(self._vae, clean).clamp(0, 1).cpu().numpy()
