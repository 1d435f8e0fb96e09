"""Where a scorer's weights come from, whether they are here, and how they get here. Imports nothing heavy.

A source is a file or folder of this machine, a hub id (`owner/name`) or the address of one file. Copies that are here
already are taken without asking the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from rayalign.rewards.environments import cache_folder
from rayalign.weight_files import weights_problem

LOCAL_PREFIX = "local-dir:"  # open_clip's
SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")
ADDRESS_PREFIXES = ("https://", "http://", "file://")


@dataclass(frozen=True)
class Weights:
    """What one option of a scorer stands for."""

    option: str  # of the constructor; takes a path or a hub id
    source: str  # the option's default; empty where that needs no file
    files: tuple[str, ...]  # that a folder or hub repository must hold; `a|b`: either


def is_local(value: str) -> bool:
    """Whether `value` means a file or folder of this machine, be it there or not; a hub id or tag otherwise."""
    value = value.removeprefix(LOCAL_PREFIX)
    if value.startswith(ADDRESS_PREFIXES):
        return False
    written = value.startswith(("/", "~", ".")) or value.count("/") > 1 or Path(value).suffix in SUFFIXES
    return written or Path(value).exists()


def local_problem(value: str, files: Sequence[str]) -> str:
    """What is wrong with a local `value` and what to set, or nothing. A file is taken to be the one that is wanted."""
    path = Path(value.removeprefix(LOCAL_PREFIX)).expanduser()
    wanted = f"a folder that holds {', '.join(files).replace('|', ' or ')}"
    if path.is_file():
        return ""
    if not path.is_dir():
        return f"no such file or folder; set {wanted}, or a hub id (owner/name)"
    missing = [names for names in files if not any((path / name).is_file() for name in names.split("|"))]
    return f"the folder lacks {', '.join(missing).replace('|', ' or ')}; set {wanted}" if missing else ""


def local_damage(value: str, files: Sequence[str]) -> str:
    """What is wrong with the local files that `value` means and that are there, or nothing; no weight is read."""
    path = Path(value.removeprefix(LOCAL_PREFIX)).expanduser()
    here = [path] if path.is_file() else [path / name for names in files for name in names.split("|")]
    return next(filter(None, (weights_problem(file) for file in here if file.is_file())), "")


def is_present(weights: Weights) -> bool:
    """Whether the default source is on this machine. Asks no network."""
    if weights.source.startswith(ADDRESS_PREFIXES):
        return downloaded_path(weights.source).is_file()
    return not weights.source or _cached(weights.source, weights.files) is not None


def short_name(source: str) -> str:
    """For a person: a hub id as it is, an address by its file."""
    return downloaded_path(source).name if source.startswith(ADDRESS_PREFIXES) else source


def find_folder(option: str, value: str, files: Sequence[str]) -> Path:
    """The folder that holds `files`: the user's own, or the hub's, fetched where it is not here.

    Raises:
        ValueError: `value` is neither; names the option and what to set.
    """
    if is_local(value):
        if problem := local_problem(value, files):
            raise ValueError(f"{option} = {value!r}: {problem}")
        return Path(value).expanduser()
    return _cached(value, files) or _fetched(option, value, files)


def find_file(option: str, value: str, file: str) -> Path:
    """As `find_folder` for one file; `value` may be that file itself, by any name."""
    path = Path(value).expanduser()
    return path if path.is_file() else find_folder(option, value, [file]) / file


def find_address(option: str, address: str, sha256: str) -> Path:
    """One file from the net, kept in the cache once its checksum is right.

    Raises:
        ValueError: it cannot be had, or is another file than expected.
    """
    path = downloaded_path(address)
    if not path.is_file():
        from torch.hub import download_url_to_file

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            download_url_to_file(address, str(path), hash_prefix=sha256, progress=False)
        except (OSError, RuntimeError) as error:  # no network, no room; another checksum
            fix = f"put it at {path}, or set {option} to a file"
            raise ValueError(f"{option}: {address} could not be fetched ({error}); {fix}") from error
    return path


def downloaded_path(address: str) -> Path:
    """Where `find_address` keeps a file."""
    return cache_folder() / "weights" / unquote(urlsplit(address).path).rpartition("/")[2]


def _cached(repository: str, files: Sequence[str]) -> Path | None:
    """The hub's folder in the local cache, if all files are in it."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    folder = None
    for names in files:
        try:
            found = [try_to_load_from_cache(repository, name) for name in names.split("|")]
        except HFValidationError:
            return None
        paths = [path for path in found if isinstance(path, str)]  # neither absent nor known not to exist
        if not paths:
            return None
        folder = Path(paths[0]).parent
    return folder


def _fetched(option: str, repository: str, files: Sequence[str]) -> Path:
    """All files by one revision of the hub's repository, whatever is cached of an older one."""
    try:
        paths = [_download(repository, names.split("|")) for names in files]
    except (OSError, ValueError) as error:  # no network, no such repository or file, not a hub id
        wanted = ", ".join(files).replace("|", " or ")
        raise ValueError(
            f"{option} = {repository!r}: no file or folder here, not in the hub's local cache, and the hub gave no "
            f"{wanted} ({error}); set {option} to a folder that holds them, or see to the network"
        ) from error
    return paths[0].parent


def _download(repository: str, names: Sequence[str]) -> Path:
    """The first of `names` that the repository has."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for name in names[:-1]:
        try:
            return Path(hf_hub_download(repository, name))
        except LocalEntryNotFoundError:  # no network, after a long wait: another name would wait again
            raise
        except EntryNotFoundError:
            continue
    return Path(hf_hub_download(repository, names[-1]))
