"""The annotate pool: CLIP embeddings of prompt, winner and loser, computed once a pair and carried in it.

A stage of its own between rollout and trainer, there only where the objective compares pairs with each other
(Diffusion-RPO): neither the rollout actors nor the train workers then hold a CLIP. Of a preference set with a latent
cache the embeddings stand in the cache, and this stage is not there.
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
from rayalign.records import CAPTION, CLEAN, tensor_values, with_embeddings
from rayalign.rewards.protocol import TextEncoder
from rayalign.rewards.table import build_scorer


class AnnotateActor:
    """Placed by Ray Data as one member of the annotate pool."""

    def __init__(self, config: RunConfig) -> None:
        self._embed = PairEmbedder(config)

    def __call__(self, pairs: pa.Table) -> pa.Table:
        """A ticket's pairs with `records.EMBEDDINGS` appended and the clean latents of step-wise rows taken away."""
        names = CLEAN if CLEAN[0] in pairs.column_names else ("winner", "loser")
        prompts = pairs[CAPTION if CAPTION in pairs.column_names else "prompt"].to_pylist()
        embeddings = self._embed(prompts, *(tensor_values(pairs[name]) for name in names))
        return with_embeddings(
            pairs.drop_columns([name for name in (*CLEAN, CAPTION) if name in pairs.column_names]), embeddings
        )


class PairEmbedder:
    """The objective's embedder on pairs of clean latents, as the VAE draws them."""

    def __init__(self, config: RunConfig) -> None:
        self._device = prepare_actor(config)
        self._vae = load_vae(config, self._device)
        name, options = config.objective.embeds_with or ("", {})
        self._clip = build_scorer(RewardConfig(scorer=name, options=options))
        # Apart from the texts of a reward of the same name, whose options may be others.
        self._texts = SharedTexts(config.key, f"embedder {name}", cast(TextEncoder, self._clip))

    def __call__(self, prompts: list[str], winner: np.ndarray, loser: np.ndarray) -> tuple[np.ndarray, ...]:
        """N prompts, N winners and losers (N, C, H, W) -> (N, D) each, as `records.EMBEDDINGS` names them."""
        self._texts.fetch(prompts)
        images = (self._clip.embed_images(self._images(latents)) for latents in (winner, loser))  # type: ignore[attr-defined]
        return (self._clip.embed_prompts(prompts), *images)  # type: ignore[attr-defined]

    @torch.no_grad()
    def _images(self, latents: np.ndarray) -> np.ndarray:
        """float32 (B, 3, H, W) in [0, 1]. A dropped row may hold NaN; it is drawn as grey and weighs nothing."""
        clean = torch.from_numpy(np.nan_to_num(latents, posinf=0.0, neginf=0.0)).to(self._device)
        return decode_latents(self._vae, clean).clamp(0, 1).cpu().numpy()
