"""A preference set by its path, whatever its layout."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rayalign.data import toy
from rayalign.data.folder import LINE, LOSERS, WINNERS, index_folder, index_jsonl, write_folder
from rayalign.data.pickapic import index_parquet, write_parquet
from rayalign.data.preferences import FIELD, PreferenceIndex, PreferenceRow
from rayalign.errors import ConfigError

EXPECTED = (
    "set parquet in the Pick-a-Pic layout (a file, a folder of files, or a pattern such as data/train-*.parquet), a "
    f".jsonl with lines of {LINE}, or a folder with {WINNERS}/ and {LOSERS}/"
)


def open_pairs(path: str | Path) -> PreferenceIndex:
    """The index of the set at `path`: a .parquet or .jsonl file, a folder, a pattern, or toy-preferences.

    Raises:
        ConfigError: nothing there, or not what it seems; `field` is pairs.path.
    """
    if not str(path):
        raise ConfigError(FIELD, "", f"is empty; {EXPECTED}")
    if str(path) == toy.NAME:
        return toy.ToyPreferences()
    path = Path(path).expanduser()
    if path.is_file() and path.suffix == ".jsonl":
        return index_jsonl(path)
    if (path / WINNERS).is_dir() and (path / LOSERS).is_dir():
        return index_folder(path)
    files = parquet_files(path)
    if not files:
        what = "holds no such thing" if path.exists() else "does not exist"
        raise ConfigError(FIELD, str(path), f"{what}; {EXPECTED}")
    return index_parquet(files)


def write_pairs(path: str | Path, rows: Iterable[PreferenceRow]) -> None:
    """Writes a set that `open_pairs` reads: a name in .parquet in the Pick-a-Pic layout, any other as a folder.

    Nothing stands under `path` before all of it does. Raises ConfigError if something already does.
    """
    path = Path(path).expanduser()
    if path.exists():
        raise ConfigError(FIELD, str(path), "exists already; set another path, or remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    (write_parquet if path.suffix == ".parquet" else write_folder)(path, rows)


def parquet_files(path: Path) -> list[Path]:
    """Those of a file, a folder or a pattern, in the order of their names."""
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    # A folder's own files and those below it, which is how the hub lays a dataset out.
    found = path.rglob("*.parquet") if path.is_dir() else path.parent.glob(path.name)
    return sorted(file for file in found if file.is_file() and not file.name.startswith((".", "_")))
