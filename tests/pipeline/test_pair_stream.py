"""The pairs of a run depend on its seed alone: not on how many actors draw them, nor on one that dies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray

from rayalign.config import RunConfig
from rayalign.models.load import load_model
from rayalign.models.publish import checksum
from rayalign.pipeline.scoring.text_store import text_encodings
from rayalign.records import pair_schema
from tests.pipeline.tools import Hand, bits, ids, kill_actor, scoring

TICKETS = 6


def toy(actors: int) -> RunConfig:
    """Real denoiser, VAE, CLIP and JPEG scorers, small numbers."""
    return RunConfig.model_validate(
        {
            "iterations": 2,
            "model": {"path": "toy-sdxl"},
            "prompts": {"source": "shapes"},
            "rewards": [{"scorer": "jpeg", "weight": 0.5}, {"scorer": "toy-clip"}],
            "sampler": {"num_steps": 6},
            "pairs": {"tuned_steps": [6, 3]},
            "rollout": {"samples_per_ticket": 2, "tickets_per_iteration": TICKETS},
            "placement": {
                "rollout": {"min": actors, "max": actors, "cpus": 0.5},
                "scorer": {"min": 2, "max": 2, "cpus": 0.1},
            },
        }
    )


@pytest.fixture(scope="module")
def services(ray_cluster: None) -> Iterator[None]:
    with scoring(toy(1)):
        yield


@pytest.fixture(scope="module")
def by_one_actor(services: None) -> list[pa.Table]:
    return Hand(toy(1)).run()


def test_every_ticket_comes_once_in_order_with_the_promised_columns(by_one_actor: list[pa.Table]) -> None:
    assert ids(by_one_actor) == [(i, slot) for i in range(2) for slot in range(TICKETS)]
    schema = pair_schema((4, 8, 8), ["jpeg", "toy-clip"])
    for table in by_one_actor:
        assert table.schema.equals(schema)
        assert len(table) == 2 * 2  # samples x tuned steps
        assert table["policy_version"].to_pylist() == [table["iteration"][0].as_py()] * 4
    whole = pa.concat_tables(by_one_actor)
    assert set(whole["denoiser_calls"].to_pylist()) == {6 + 2}
    won, lost = whole["reward_winner"].to_numpy(), whole["reward_loser"].to_numpy()
    kept = np.array(whole["status"].to_pylist()) == "kept"
    assert kept.any()
    assert (won[kept] > lost[kept]).all()


def test_three_actors_draw_the_same_bits(by_one_actor: list[pa.Table]) -> None:
    by_three = Hand(toy(3)).run()
    assert ids(by_three) == ids(by_one_actor)
    assert bits(by_three).equals(bits(by_one_actor))


def test_the_text_tower_ran_once_for_each_prompt_in_two_replicas(by_one_actor: list[pa.Table]) -> None:
    prompts = {prompt for table in by_one_actor for prompt in table["prompt"].to_pylist()}
    counts = text_encodings(toy(1).key)
    assert counts == {"toy-clip": {"distinct_prompts": len(prompts), "forwards": len(prompts)}}


def test_a_killed_actor_changes_no_bit(by_one_actor: list[pa.Table]) -> None:
    killed: list[int] = []

    def kill_once(table: pa.Table) -> None:
        if not killed:  # the first ticket is through, others are on their way
            killed.append(kill_actor("RolloutActor"))

    survived = Hand(toy(1)).run(kill_once)
    assert killed
    assert ids(survived) == ids(by_one_actor)
    assert bits(survived).equals(bits(by_one_actor))


@pytest.mark.parametrize("lag", [0, 1])
def test_a_ticket_uses_exactly_the_version_its_lag_allows(ray_cluster: None, stub_run: Any, lag: int) -> None:
    config = stub_run(iterations=3, rollout={"max_lag": lag})
    with scoring(config):
        tables = Hand(config).run()
    versions = [(t["iteration"][0].as_py(), t["policy_version"][0].as_py()) for t in tables]
    assert versions == [(i, max(0, i - lag)) for i in range(3) for _ in range(4)]


def flip_a_byte(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    name = sorted(arrays)[0]
    damaged = arrays[name].copy()
    damaged.view(np.uint8).reshape(-1)[0] ^= 1
    return arrays | {name: damaged}


def test_a_flipped_byte_stops_the_run(ray_cluster: None, stub_run: Any) -> None:
    hand = Hand(stub_run())
    hand.publish = partial(hand.publish, tamper=flip_a_byte)  # type: ignore[method-assign]
    with scoring(hand.config), pytest.raises(Exception, match="arrived damaged: its checksum"):
        hand.run()
    assert "checksum" in ray.get(hand.board.status.remote()).fatal


def test_weights_bound_to_the_wrong_modules_stop_the_run(services: None) -> None:
    """Right bytes, right names and shapes, wrong places: what the actor's denoiser does gives it away."""
    hand = Hand(toy(1))
    wanted = small_update(hand.config)
    swapped = {name: wanted[other_module(name)] for name in wanted}

    def mislabelled(version: int) -> None:
        # The trainer describes its own weights; what is sent is named wrongly from the start, so its checksum is right.
        Hand.publish(hand, version, wanted)
        _, published = ray.get(hand.board.weights.remote(version))
        hand.kept.append(ray.put(swapped))
        described = replace(published, checksum=checksum(swapped))
        ray.get(hand.board.publish.remote([hand.kept[-1]], described))

    hand.publish = mislabelled  # type: ignore[method-assign]
    with pytest.raises(Exception, match="bound to the wrong modules"):
        hand.run()
    assert "canary" in ray.get(hand.board.status.remote()).fatal


def small_update(config: RunConfig) -> dict[str, np.ndarray]:
    """A LoRA as one small update leaves it: B about 1e-5."""
    rng = np.random.default_rng(0)
    arrays = load_model(config, "cpu").weights.state("policy")
    return {
        name: (rng.normal(size=value.shape) * 1e-5).astype(np.float32) if name.endswith("lora_B") else value
        for name, value in arrays.items()
    }


def other_module(name: str) -> str:
    """attn1.to_q <-> attn1.to_out.0, which have the same shapes."""
    if "attn1.to_q." in name:
        return name.replace("to_q.", "to_out.0.")
    return name.replace("to_out.0.", "to_q.") if "attn1.to_out.0." in name else name
