"""Trees of settings: laid over one another, by dotted name, compared."""

from __future__ import annotations

from rayalign.trees import changes, flat, merged, put


def test_a_later_layer_wins_and_groups_are_merged() -> None:
    layers = [{"seed": 0, "train": {"lr": 0.1, "precision": "no"}}, {"train": {"lr": 0.2}}, {"name": "first"}]
    assert merged(layers) == {"seed": 0, "train": {"lr": 0.2, "precision": "no"}, "name": "first"}


def test_another_kind_brings_settings_of_its_own() -> None:
    pairs = {"pairs": {"kind": "stepwise", "num_candidates": 4}}
    assert merged([pairs, {"pairs": {"kind": "sample", "group": 2}}]) == {"pairs": {"kind": "sample", "group": 2}}
    assert merged([pairs, {"pairs": {"min_gap": 0.1}}]) == {"pairs": pairs["pairs"] | {"min_gap": 0.1}}


def test_leaves_by_dotted_name() -> None:
    tree: dict = {"name": "first", "rewards": [{"scorer": "jpeg"}]}
    put(tree, "train.lr", 0.1)
    assert flat(tree) == {"name": "first", "rewards": [{"scorer": "jpeg"}], "train.lr": 0.1}


def test_changes_are_named_leaf_by_leaf() -> None:
    before, now = {"seed": 0, "train": {"lr": 0.1, "steps": 2}}, {"seed": 7, "train": {"lr": 0.1}}
    assert changes(before, now) == ["seed 0 -> 7", "train.steps 2 -> None"]
    assert changes(before, before) == []
