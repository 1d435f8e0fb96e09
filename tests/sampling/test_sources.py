from __future__ import annotations

import asyncio
from typing import Any, get_args

import pytest
import torch

from rayalign.config import DatasetPairs, FinalPairs, Pairs, SamplePairs, StepwisePairs, TrajectoryPairs
from rayalign.models.text_to_image import TextToImage
from rayalign.records import CLEAN, LATENTS, Ticket, pair_schema
from rayalign.sampling.drawn import Drawn
from rayalign.sampling.noise import SampleNoise
from rayalign.sampling.pair_table import pair_table
from rayalign.sampling.sources import SOURCES, draw_ticket, num_prompts
from tests.sampling.scores import BRIGHTNESS
from tests.toys import model_of, nudged

STEPS, SAMPLES = 5, 4
ONLINE = [StepwisePairs(tuned_steps=(4, 2)), TrajectoryPairs(), FinalPairs(), SamplePairs(group=2)]
PAIRED = ONLINE[:3]


def by_kind(pairs: Any) -> str:
    return pairs.kind


@pytest.fixture(scope="module")
def model() -> TextToImage:
    model = model_of("stub", ("policy",), sampler={"num_steps": STEPS}, pairs={"kind": "final"})
    model.weights.load("policy", nudged(model, 1))
    return model


def draw(model: TextToImage, pairs: Any, annotated: bool = False) -> Drawn:
    prompts = [f"prompt {number}" for number in range(num_prompts(pairs, SAMPLES))]
    noise = SampleNoise(range(SAMPLES), model.latent_shape, model.device)
    return asyncio.run(draw_ticket(model, BRIGHTNESS, prompts, noise, pairs, annotated))  # type: ignore[arg-type]


def test_every_kind_of_pairs_but_a_dataset_has_its_source() -> None:
    kinds = {member.model_fields["kind"].default for member in get_args(get_args(Pairs)[0])}
    assert set(SOURCES) == kinds - {DatasetPairs().kind} == {pairs.kind for pairs in ONLINE}


@pytest.mark.parametrize("pairs", ONLINE, ids=by_kind)
def test_a_ticket_becomes_a_table_of_its_kinds_schema(model: TextToImage, pairs: Any) -> None:
    drawn = draw(model, pairs)
    table = pair_table(drawn, Ticket(7, 4), 1, ["stub"], pairs.rows)
    assert table.schema.equals(pair_schema(model.latent_shape, ["stub"], pairs.rows), check_metadata=True)
    steps = pairs.steps_on(STEPS)
    rows = table.to_pylist()
    assert [(row["step"], row["sample"]) for row in rows] == [(step, n) for step in steps for n in range(SAMPLES)]
    assert {row["trajectories"] for row in rows} == {drawn.trajectories}
    assert {row["denoiser_calls"] for row in rows} == {drawn.denoiser_calls}
    # What the settings promise to cost, one trajectory with another.
    assert drawn.denoiser_calls == drawn.trajectories * pairs.calls_per_trajectory(STEPS)
    sampled = [row["advantage"] is not None and row["log_prob"] is not None for row in rows]
    assert sampled == [pairs.rows == "sample"] * len(rows)
    for row in rows:
        assert (row["iteration"], row["slot"], row["policy_version"]) == (1, 3, 1)
        assert row["prompt"] == drawn.prompts[row["sample"]]
        if row["step"]:
            assert row["timestep"] == model.kernel.timestep(row["step"])
            assert row["timestep_prev"] == model.kernel.timestep_prev(row["step"])


@pytest.mark.parametrize("pairs", ONLINE, ids=by_kind)
def test_a_ticket_is_a_function_of_its_noise_and_prompts(model: TextToImage, pairs: Any) -> None:
    tables = [pair_table(draw(model, pairs), Ticket(7, 4), 1, ["stub"], pairs.rows) for _ in range(2)]
    clock = ["ticket_rollout_s", "ticket_scoring_s", "ticket_queued_s"]
    assert tables[0].drop(clock).equals(tables[1].drop(clock))


def test_neighbouring_samples_of_a_group_have_one_prompt(model: TextToImage) -> None:
    grouped = SamplePairs(group=2)
    assert num_prompts(grouped, SAMPLES) == 2
    drawn = draw(model, grouped)
    assert drawn.prompts == ["prompt 0", "prompt 0", "prompt 1", "prompt 1"]
    # Each from noise of its own.
    first, second = drawn.rows[0].latents["x_t"][:2]
    assert not torch.equal(first, second)


@pytest.mark.parametrize("pairs", PAIRED, ids=by_kind)
def test_pairs_take_a_prompt_for_each_sample(model: TextToImage, pairs: Any) -> None:
    assert num_prompts(pairs, SAMPLES) == SAMPLES
    assert draw(model, pairs).prompts == [f"prompt {number}" for number in range(SAMPLES)]


@pytest.mark.parametrize("pairs", PAIRED, ids=by_kind)
def test_annotated_rows_carry_the_clean_latents_to_embed(model: TextToImage, pairs: Any) -> None:
    plain, annotated = (draw(model, pairs, also) for also in (False, True))
    table = pair_table(annotated, Ticket(0, 1), 0, ["stub"], pairs.rows)
    assert table.schema.equals(pair_schema(model.latent_shape, ["stub"], pairs.rows, annotated=True))
    for rows, before in zip(annotated.rows, plain.rows, strict=True):
        assert tuple(before.latents) == LATENTS[pairs.rows]
        assert tuple(rows.latents) == LATENTS[pairs.rows] + (() if pairs.rows == "clean" else CLEAN)
        for side, scores in (("winner", rows.winner), ("loser", rows.loser)):
            # Those that were scored; finished images are their own.
            clean = rows.latents.get(f"clean_{side}", rows.latents[side])
            images = model.decode(clean).numpy()
            again = asyncio.run(BRIGHTNESS(images, annotated.prompts))
            assert again.total_B.tolist() == pytest.approx(scores.total_B.tolist(), abs=1e-6)
            assert torch.equal(rows.latents[side], before.latents[side])
