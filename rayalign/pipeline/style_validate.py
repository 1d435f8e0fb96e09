"""What can be known to be wrong with a style alignment before anything starts."""

from __future__ import annotations

from pathlib import Path

from rayalign.config import RunConfig
from rayalign.config.style import FolderStyle, ImageToImageStyle, LoraStyle, StyleConfig
from rayalign.data.style_pictures import FolderPictures, PictureRow, picture_rows, training_rows
from rayalign.errors import ConfigError
from rayalign.evaluation.features import check_extractor
from rayalign.models.families import find_family, resolve_path
from rayalign.models.lora_check import check_lora_fits
from rayalign.models.merged_lora import find_lora
from rayalign.models.stylise import image_to_image_class
from rayalign.pipeline.draw import evaluation_rows
from rayalign.pipeline.output_check import check_same_options, stored_config
from rayalign.pipeline.resume import check_resume
from rayalign.pipeline.validate import check_inputs, with_absolute_paths
from rayalign.trees import changes


def absolute_style(config: StyleConfig) -> StyleConfig:
    """The same job with its output, and every local file or folder it names, as absolute paths: see `validate`."""
    shared = with_absolute_paths(RunConfig.model_validate(config.shared())).model_dump()
    shared["pairs"]["path"] = ""
    tree = config.model_dump() | shared
    if tree["style"].get("path"):
        tree["style"]["path"] = str(Path(tree["style"]["path"]).expanduser().resolve())
    return StyleConfig.model_validate(tree)


def check_style(config: StyleConfig) -> tuple[list[PictureRow], list[PictureRow]]:
    """The pictures that the job needs: (training, held out).

    Raises ConfigError on the first setting of the job, of its style or of a method's run that cannot be used.
    """
    for note in check_inputs(config.given()):
        print(note, flush=True)
    heldout = picture_rows("heldout", evaluation_rows(config))
    training = training_rows(config, heldout)
    _check_pictures(config, [*training, *heldout])
    check_extractor(config.features.extractor, config.features.options, "features")
    for method in config.methods:
        check_resume(config.run_of(method))
    _check_unchanged(config)
    return training, heldout


def _check_unchanged(config: StyleConfig) -> None:
    """Pictures that are there already must be those that would be drawn now."""
    stored = stored_config(config.folder, StyleConfig)
    if stored is None or not (Path(config.pairs.path).exists() or (config.folder / "images").exists()):
        return
    if changed := changes(stored.decides_pictures(), config.decides_pictures()):
        fix = f"{config.folder} holds the pictures of other settings ({'; '.join(changed)}); set another --name"
        raise ConfigError("name", config.name, fix)
    check_same_options(stored, config)


def _check_pictures(config: StyleConfig, rows: list[PictureRow]) -> None:
    style = config.style
    if isinstance(style, ImageToImageStyle):
        image_to_image_class(find_family(config.model.path, config.model.family))
        if int(config.sampler.num_steps * style.strength) < 1:
            fix = f"draws none of {config.sampler.num_steps} steps anew; set it to {1 / config.sampler.num_steps:g} up"
            raise ConfigError("style.strength", style.strength, fix)
    elif isinstance(style, LoraStyle):
        file, model = find_lora(style.path), Path(resolve_path(config.model.path))
        if model.is_dir():
            check_lora_fits(file, model, find_family(config.model.path, config.model.family), "style.path")
    elif isinstance(style, FolderStyle):
        if not style.path:
            raise ConfigError("style.path", "", "is empty; set the folder of the restyled pictures")
        if not style.export:
            FolderPictures(style.path).check(rows)
        elif any(Path(style.path).glob("*/*")):
            raise ConfigError("style.path", style.path, "holds pictures already; set another folder to export to")
