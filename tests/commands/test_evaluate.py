"""What an evaluation takes over from a run's folder."""

from __future__ import annotations

from pathlib import Path

from rayalign.commands.evaluate import _of_runs
from rayalign.config import RewardConfig, RunConfig
from rayalign.config.evaluate import EvaluateConfig


def test_held_out_scorers_come_with_their_options(tmp_path: Path) -> None:
    jpeg = {"scorer": "jpeg", "options": {"quality": 50}, "placement": {"gpus": 1}}
    red = {"scorer": "stub", "options": {"rule": "red"}}
    run = RunConfig.model_validate({"rewards": [jpeg], "evaluation": {"scorers": ["jpeg-large", red]}})
    (tmp_path / "config.yaml").write_text(run.to_yaml())
    config = EvaluateConfig.model_validate(_of_runs([str(tmp_path)]))
    assert config.rewards == (RewardConfig(scorer="jpeg", options={"quality": 50}),)  # placed as the evaluation says
    assert config.heldout == run.evaluation.scorers
    older = "rewards: [{scorer: jpeg}]\nprompts: {source: shapes, column: prompt}\nevaluation: {scorers: [clip]}"
    (tmp_path / "config.yaml").write_text(older)
    assert [one.scorer for one in EvaluateConfig.model_validate(_of_runs([str(tmp_path)])).heldout] == ["clip"]
