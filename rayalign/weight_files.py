"""Whether a file of weights is whole, as far as its header and directory say: no weight is read.

A flipped bit inside a weight is not seen: it is another weight. What is cut short, emptied or of another kind is.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

from rayalign.errors import ConfigError

PICKLED = (".pt", ".pth", ".bin", ".ckpt")
STAMPED_BYTES = 1 << 28
PICKLE_START = b"\x80"  # of torch's format before version 1.6; later files are zip archives
Shapes = dict[str, tuple[int, ...]]


def weights_stamp(path: str | Path) -> str:
    """A digest of the weight files of a file or folder: other weights, another stamp. "" of what is no local path.

    Of files above `STAMPED_BYTES` size and time of change stand for the bytes.
    """
    place, digest = Path(path).expanduser(), hashlib.blake2b(digest_size=6)
    files = [place] if place.is_file() else sorted(place.rglob("*")) if place.is_dir() else []
    found = [file for file in files if file.suffix in (".safetensors", *PICKLED)]
    for file in found:
        about = file.stat()
        digest.update(f"{file.relative_to(place)} {about.st_size} ".encode())
        digest.update(file.read_bytes() if about.st_size <= STAMPED_BYTES else str(about.st_mtime_ns).encode())
    return digest.hexdigest() if found else ""


def weights_problem(path: Path) -> str:
    """What is wrong with the file, empty if nothing can be seen; files of other kinds are not looked at."""
    try:
        if path.suffix == ".safetensors":
            tensor_shapes(path)
        elif path.suffix in PICKLED:
            _check_archive(path)
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return f"{path.name} is damaged or cut short ({error}); fetch it again"
    return ""


def tensor_shapes(path: Path) -> Shapes:
    """Name -> shape of every tensor of a .safetensors file. Raises ValueError or OSError where it is not whole."""
    from safetensors import SafetensorError, safe_open

    if path.stat().st_size == 0:
        raise ValueError("it is empty")
    try:
        with safe_open(path, "np") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def part_files(folder: Path, stem: str) -> list[Path]:
    """The weight files that diffusers or transformers would read from a part's folder: one, or an index's shards.

    Raises ConfigError where there are none, or the index names one that is not there.
    """
    whole, pickled = f"{stem}.safetensors", "pytorch_model.bin" if stem == "model" else f"{stem}.bin"
    for name in (whole, pickled):
        if (folder / name).is_file():
            return [folder / name]
        index = folder / f"{name}.index.json"
        if not index.is_file():
            continue
        names = read_json(index).get("weight_map")
        if not isinstance(names, dict) or not names:
            raise ConfigError("model.path", str(index), "has no weight_map; fetch the model again")
        shards = sorted({str(shard) for shard in names.values()})
        if missing := [shard for shard in shards if not (folder / shard).is_file()]:
            raise ConfigError("model.path", str(folder), f"lacks {', '.join(missing)}, which {index.name} names")
        return [folder / shard for shard in shards]
    raise ConfigError("model.path", str(folder), f"holds no weights; put {whole} there")


def read_json(path: Path, field: str = "model.path") -> dict[str, Any]:
    """A JSON object. Raises ConfigError naming `field` and the file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(field, str(path), f"cannot be read ({error}); fetch the model again") from error
    if not isinstance(found, dict):
        raise ConfigError(field, str(path), "is no JSON object; fetch the model again")
    return found


def _check_archive(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(1)
    if start == PICKLE_START:
        return
    try:
        with zipfile.ZipFile(path) as archive:
            directory = [info for info in archive.infolist() if info.filename.endswith("data.pkl")]
            if not directory:
                raise ValueError("no data.pkl in it")
            archive.read(directory[0])  # its checksum; that of the weights would mean reading them all
    except zipfile.BadZipFile as error:
        raise ValueError(f"{error}" if start else "it is empty") from error
