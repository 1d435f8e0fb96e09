"""The Grafana dashboard asks for metrics that the reward services export, under the labels that they carry."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "cluster" / "grafana-dashboard.json").read_text())
SOURCE = (ROOT / "rayalign" / "pipeline" / "scoring/metrics.py").read_text()
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


# What Prometheus finds of a metric, by its kind; tests/pipeline/test_reward_service.py reads some at a node's port.
ENDINGS = {"Counter": ("_total",), "Histogram": ("_bucket", "_sum", "_count"), "Gauge": ("",)}


def test_every_metric_is_one_that_is_exported_and_all_are_shown() -> None:
    made = re.findall(r'(Counter|Histogram|Gauge)\("(rayalign_score_\w+)"', SOURCE)
    exported = {f"{name}{ending}": name for kind, name in made for ending in ENDINGS[kind]}
    asked = {name for text in EXPRESSIONS for name in re.findall(r"ray_(rayalign_score_\w+)", text)}
    assert asked <= exported.keys()
    assert {exported[name] for name in asked} == set(re.findall(r'"(rayalign_score_\w+)"', SOURCE))


def test_panels_have_ids_and_places_of_their_own() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places) == len({panel["id"] for panel in DASHBOARD["panels"]})
    assert all(text.count("(") == text.count(")") for text in EXPRESSIONS)
    assert all('run=~"$run",scorer=~"$scorer"' in text for text in EXPRESSIONS)
