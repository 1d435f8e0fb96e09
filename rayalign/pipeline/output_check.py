"""Whether a run may have its folder: it can be written to, has room, and holds nothing of anybody else."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO, Any, TypeVar

from pydantic import ValidationError

from rayalign.config import RunConfig
from rayalign.config.files import read_settings
from rayalign.errors import ConfigError

AnyRun = TypeVar("AnyRun", bound=RunConfig)
# What a run writes; anything else in a folder without config.yaml is somebody's.
OURS = (
    "checkpoints",
    "images",
    "lora",
    "model",
    "best",
    "ray",
    "export",
    "history.jsonl",
    "summary.json",
    "report.html",
    "latents",
    "trackers.json",
    "wandb",
)
LOCK = ".running"
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
        check_same_options(stored, config)
    check_writable(config)


def check_same_options(stored: RunConfig, config: RunConfig) -> None:
    """Raises ConfigError if a scorer, held out or not, has other options than when it scored the folder's pictures.

    One that is new, or left out, is noticed by its name: the pictures are then drawn again.
    """
    before = {reward.scorer: reward.options for reward in stored.all_rewards}
    changed = [one.scorer for one in config.all_rewards if before.get(one.scorer, one.options) != one.options]
    if changed:
        fix = f"{config.folder} holds pictures scored with other options of {', '.join(changed)}; set another --name"
        raise ConfigError("name", config.name, fix)


def claim(config: RunConfig) -> IO[str]:
    """Keeps every other process from running in the folder until what it answers is closed, or this process dies.

    Raises ConfigError if one does already. A file system without locks is left as it is.
    """
    lock = (config.folder / LOCK).open("a", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        fix = f"another process is running in {config.folder}; wait for it, or set another --name"
        raise ConfigError("name", config.name, fix) from None
    except OSError:
        pass
    return lock


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
    foreign = [name for name in found if name not in OURS and not _harmless(name)]
    if foreign:
        shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        fix = f"{config.folder} holds files that are no run's ({shown}); set another --name or --output"
        raise ConfigError("name", config.name, fix)


def _harmless(name: str) -> bool:
    """Hidden, TensorBoard's, or what a shell or Slurm redirects a run's output to."""
    return name.startswith((".", "events.")) or name.endswith((".log", ".out", ".err"))


def _draws(config: RunConfig, group: str) -> dict[str, Any]:
    """What pictures before tuning follow from."""
    return {name: value for name, value in getattr(config, group).model_dump().items() if name != "tuning"}
