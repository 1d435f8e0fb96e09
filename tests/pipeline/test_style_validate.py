"""What a style job refuses before anything starts: no cluster in these tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from rayalign.config.style import StyleConfig
from rayalign.errors import ConfigError
from rayalign.pipeline.style_validate import absolute_style, check_style


def job(folder: Path, **changes: Any) -> StyleConfig:
    tree: dict[str, Any] = {
        "output": str(folder),
        "model": {"path": "toy-sdxl"},
        "objective": {"embedder": "toy-clip"},
        "features": {"extractor": "toy-clip"},
        "num_pairs": 2,
        "evaluation": {"num_prompts": 2, "seeds_per_prompt": 2},
    }
    return StyleConfig.model_validate(tree | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": {"extractor": "klip"}}, "features.extractor = 'klip': no such extractor; did you mean clip?"),
        (
            {"features": {"extractor": "toy-clip", "options": {"model": "x"}}},
            "features.options = {'model': 'x', 'device': 'cpu'}: got an unexpected keyword argument 'model'",
        ),
        ({"features": {"extractor": "inception", "options": {"weights": "none.pth"}}}, "no Inception weights at none"),
        ({"rewards": [{"scorer": "nobody"}]}, "'nobody'"),
        ({"objective": {"embedder": "jpeg"}}, "objective.embedder = 'jpeg': embeds nothing"),
        ({"model": {"path": "nowhere"}}, "model.path = 'nowhere': no such folder"),
        ({"prompts": {"source": "nothing.txt"}}, "prompts.source = 'nothing.txt': no such file"),
        ({"model": {"path": "stub"}, "style": {"kind": "img2img"}}, "style.kind = 'img2img': diffusers has no image-"),
        ({"style": {"kind": "img2img", "strength": 0.04}}, "style.strength = 0.04: draws none of 20 steps anew; set"),
        ({"style": {"kind": "lora", "path": "none.safetensors"}}, "style.path = 'none.safetensors': is no .safeten"),
        ({"style": {"kind": "folder"}}, "style.path = '': is empty; set the folder of the restyled pictures"),
        ({"style": {"kind": "folder", "path": "nothing"}}, "style.path = 'nothing': 6 of 6 pictures have no restyled"),
    ],
)
def test_bad_input_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_style(job(tmp_path, **changes))
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_an_export_goes_where_nothing_is(tmp_path: Path) -> None:
    place = tmp_path / "out"
    check_style(job(tmp_path, style={"kind": "folder", "path": str(place), "export": True}))
    (place / "training").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(place / "training" / "0.png")
    with pytest.raises(ConfigError, match="holds pictures already; set another folder to export to"):
        check_style(job(tmp_path, style={"kind": "folder", "path": str(place), "export": True}))


def test_pictures_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    config = job(tmp_path)
    config.folder.mkdir()
    (config.folder / "config.yaml").write_text(config.to_yaml())
    check_style(job(tmp_path, num_pairs=3))  # nothing was drawn yet
    Path(config.pairs.path).touch()
    check_style(job(tmp_path, methods=["dpo"], iterations=99))
    with pytest.raises(ConfigError, match=r"the pictures of other settings \(num_pairs 2 -> 3\); set another"):
        check_style(job(tmp_path, num_pairs=3))


def test_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("words.txt").write_text("a cat")
    config = absolute_style(
        StyleConfig.model_validate({"prompts": {"source": "words.txt"}, "style": {"kind": "folder", "path": "styled"}})
    )
    assert config.prompts.source == str(tmp_path / "words.txt")
    assert config.pairs.path == str(tmp_path / "runs" / config.name / "pairs.parquet")
    assert (config.style.path, config.output) == (str(tmp_path / "styled"), str(tmp_path / "runs"))  # type: ignore[union-attr]
