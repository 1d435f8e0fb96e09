"""A NaN in a latent: the pair is dropped under its own reason, no scorer meets it, the other samples go on alike."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import numpy as np
import pytest
import torch

from rayalign.config import FinalPairs, SamplePairs, StepwisePairs, TrajectoryPairs
from rayalign.models.text_to_image import TextToImage
from rayalign.records import KEPT, LATENT_FAILED, Ticket
from rayalign.sampling.noise import SampleNoise
from rayalign.sampling.pair_table import pair_table
from rayalign.sampling.sources import SOURCES
from tests.sampling.scores import answering
from tests.toys import model_of

STEPS = 5
PAIRS = {
    "stepwise": StepwisePairs(tuned_steps=(5, 3, 1)),
    "trajectory": TrajectoryPairs(),
    "final": FinalPairs(),
    "sample": SamplePairs(group=2),
}


def drawn_table(kind: str, spoilt: int | None, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[np.ndarray]]:
    """Four samples; at the denoiser's third call the answer for sample `spoilt` holds a NaN. -> (table, images)."""
    pairs = PAIRS[kind]
    model = model_of("stub", ("policy",), sampler={"num_steps": STEPS}, pairs={"kind": "final"})
    plain, calls, seen = TextToImage.denoise, [0], []

    def denoise(self: TextToImage, *args: Any, **kwargs: Any) -> torch.Tensor:
        answer = plain(self, *args, **kwargs)
        calls[0] += 1
        if calls[0] == 3 and spoilt is not None:
            answer[spoilt].view(-1)[0] = math.nan
        return answer

    def brightness(images: np.ndarray) -> np.ndarray:
        seen.append(images)
        return images.mean((1, 2, 3))

    monkeypatch.setattr(TextToImage, "denoise", denoise)
    noise = SampleNoise((1, 2, 3, 4), model.latent_shape, model.device)
    prompts = ["a cat", "a cat", "a dog", "a dog"]
    score = answering(brightness)
    drawn = asyncio.run(SOURCES[kind](model, score, prompts, noise, pairs, False))  # type: ignore[arg-type]
    return pair_table(drawn, Ticket(0, 4), 0, ["stub"], pairs.rows).to_pandas(), seen


@pytest.mark.parametrize("kind", PAIRS)
def test_the_pair_is_dropped_by_its_reason_and_its_neighbours_stay(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = drawn_table(kind, None, monkeypatch)
    monkeypatch.undo()
    found, images = drawn_table(kind, 1, monkeypatch)
    assert all(np.isfinite(batch).all() for batch in images)  # no scorer meets it
    spoilt, others = found[found["sample"] == 1], found[found["sample"] != 1]
    if kind == "stepwise":  # the spoilt call looked ahead from candidate 1 of the first pair; candidate 0 goes on
        assert spoilt["status"].tolist() == [LATENT_FAILED, KEPT, KEPT]
        assert np.isfinite(spoilt["final_reward"]).all()
    else:  # a whole trajectory
        assert set(spoilt["status"]) == {LATENT_FAILED}
    if kind == "sample":  # the advantage of its group's other sample is of what is left
        others = others[others["sample"] > 1]
    assert len(others)
    for name in ("status", "reward_winner", "reward_loser", "final_reward"):
        assert others[name].tolist() == whole.loc[others.index, name].tolist()
    for name in ("winner", "x_t"):
        if name in others:
            assert all(map(np.array_equal, others[name], whole.loc[others.index, name]))
