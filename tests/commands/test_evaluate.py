"""What an evaluation takes over from a run's folder."""

from __future__ import annotations

from pathlib import Path

from rayalign.commands.evaluate import _of_runs
from rayalign.config import RunConfig
from rayalign.config.evaluate import EvaluateConfig


def test_held_out_scorers_come_with_their_options(tmp_path: Path) -> None:
    red = {"scorer": "stub", "options": {"rule": "red"}}
    run = RunConfig.model_validate({"rewards": [{"scorer": "jpeg"}], "evaluation": {"scorers": ["jpeg-large", red]}})
    (tmp_path / "config.yaml").write_text(run.to_yaml())
    config = EvaluateConfig.model_validate(_of_runs([str(tmp_path)]))
    assert config.rewards == run.rewards
    assert config.heldout == run.evaluation.scorers
    older = "rewards: [{scorer: jpeg}]\nprompts: {source: shapes, column: prompt}\nevaluation: {scorers: [clip]}"
    (tmp_path / "config.yaml").write_text(older)
    assert [one.scorer for one in EvaluateConfig.model_validate(_of_runs([str(tmp_path)])).heldout] == ["clip"]
