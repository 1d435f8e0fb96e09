"""Whether a run may have its folder: it can be written to, has room, and holds nothing of anybody else."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from rayalign.config import RunConfig
from rayalign.config.files import read_settings
from rayalign.errors import ConfigError

AnyRun = TypeVar("AnyRun", bound=RunConfig)
# What a run writes; anything else in a folder without config.yaml is somebody's.
OURS = ("checkpoints", "images", "lora", "model", "ray", "history.jsonl", "summary.json", "report.html", "latents")
PROBE_BYTES = 1 << 20  # less room than this and the first checkpoint would fail, after an hour


def check_output(config: RunConfig) -> None:
    """Makes the run's folder. Raises ConfigError if it cannot be written to, or is not this run's."""
    folder = config.folder
    stored = stored_config(folder, RunConfig)
    if stored is None:
        _check_nobodys(config)
    elif (folder / "images" / "before" / "scores.json").exists():
        # Without a checkpoint nothing else would notice that these pictures are of another model.
        changed = [name for name in ("model", "sampler") if _draws(stored, name) != _draws(config, name)]
        if changed:
            fix = f"{folder} holds pictures drawn with other settings of {' and '.join(changed)}; set another --name"
            raise ConfigError("name", config.name, fix)
    check_writable(config)


def check_writable(config: RunConfig) -> None:
    """Makes the folder. Raises ConfigError where that or a file in it cannot be made."""
    folder = config.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())  # some file systems tell of a full disk only now
    except OSError as error:
        fix = f"{folder} cannot be written to ({error.strerror or error}); make room, or set another --output"
        raise ConfigError("output", config.output, fix) from error


def stored_config(folder: Path, group: type[AnyRun]) -> AnyRun | None:
    """The settings that a run's folder was begun with; None where there are none. Raises ConfigError if damaged."""
    path = folder / "config.yaml"
    if not os.path.exists(path):  # pathlib raises for a name that no file can have
        return None
    try:
        return group.model_validate(read_settings(path, "name"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "settings"
        fix = f"is no run's config.yaml ({where}: {first['msg']}); set another --name, or take it out"
        raise ConfigError("name", str(path), fix) from error


def _check_nobodys(config: RunConfig) -> None:
    found = sorted(path.name for path in config.folder.iterdir()) if os.path.isdir(config.folder) else []
    foreign = [name for name in found if name not in OURS and not name.startswith((".", "events."))]
    if foreign:
        shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        fix = f"{config.folder} holds files that are no run's ({shown}); set another --name or --output"
        raise ConfigError("name", config.name, fix)


def _draws(config: RunConfig, group: str) -> dict[str, Any]:
    """What pictures before tuning follow from."""
    return {name: value for name, value in getattr(config, group).model_dump().items() if name != "tuning"}
