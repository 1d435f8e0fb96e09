"""Pictures that are to be scored, with their prompts, whatever their layout.

    folder/a.png  a.txt or a.caption               the prompt beside each image
    folder/metadata.jsonl                          {"file_name": "a.png", "text": "a cat"}, the hub's imagefolder
    *.parquet                                      a column of encoded images or paths, and one of prompts

A set is divided into parts, by its input alone. An image is opened when its part is read, so nothing is known of it
before; one that cannot be read comes back as such.
"""

from __future__ import annotations

from pathlib import Path

from rayalign.config.score import ScoreConfig
from rayalign.data.picture import FIELD, PictureSet
from rayalign.data.picture_folder import folder_set
from rayalign.data.picture_parquet import parquet_set
from rayalign.data.source import parquet_files
from rayalign.errors import ConfigError


def open_pictures(config: ScoreConfig) -> PictureSet:
    """The set at `config.images`. Raises ConfigError if nothing is there, or not what it seems."""
    path = Path(config.images).expanduser().resolve()
    files = parquet_files(path)
    if files:
        columns = (config.prompt_column, config.image_column, config.id_column)
        return parquet_set(files, config.prompt, *columns)
    if not path.is_dir():
        what = "is no folder and no parquet file" if path.exists() else "does not exist"
        raise ConfigError(FIELD, config.images, f"{what}; set a folder of images, or parquet (file, folder, pattern)")
    for name in ("image_column", "id_column"):
        if getattr(config, name) is not None:
            raise ConfigError(name, getattr(config, name), f"is of parquet, and {path} is a folder of images; leave it")
    return folder_set(path, config.prompt, config.prompt_column, config.rows_per_file)
