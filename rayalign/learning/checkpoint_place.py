"""Where checkpoints are kept: a local folder, or any URI that pyarrow (s3, gs, abfs, hdfs) or fsspec knows.

Little is asked of a place, so that a bucket will do, which has no rename and no folders: files are put, read, listed
and removed, one at a time. What makes a checkpoint whole is its manifest, which is put last.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rayalign.learning.manifest import CHUNK
from rayalign.whole_files import share

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

# What pyarrow's wheel brings itself; fsspec would need a package for each.
OF_PYARROW = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")
TRIES, FIRST_PAUSE_S = 4, 1.0  # of a remote call that fails: seven seconds, longer than a connection takes to come back
Answer = TypeVar("Answer")


class Place(ABC):
    """Paths are relative to its root, with slashes."""

    name: str  # of the root, as a person writes it

    @abstractmethod
    def scratch(self) -> AbstractContextManager[Path]:
        """A local folder to prepare files in, for `put`; what an earlier writer left there is gone."""

    @abstractmethod
    def put(self, file: Path, path: str) -> None:
        """Makes a file of `scratch` the file at `path`, on the disk or in the store when this returns."""

    @abstractmethod
    def local(self, path: str) -> AbstractContextManager[Path]:
        """The file at `path` as a local one to read. Raises FileNotFoundError."""

    @abstractmethod
    def read(self, path: str) -> bytes:
        """A small file, whole. Raises FileNotFoundError."""

    @abstractmethod
    def names(self, folder: str = "") -> list[str]:
        """What is in a folder, sorted; nothing of one that is not there."""

    @abstractmethod
    def remove(self, path: str) -> None:
        """A file, or a folder with all in it; fine if it is not there."""


class LocalPlace(Place):
    """A folder. A file appears by a rename, once its bytes are on the disk: a power cut leaves all or nothing of it."""

    def __init__(self, root: Path) -> None:
        self.root, self.name = root, str(root)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        folder = self.root / ".partial"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        yield folder
        shutil.rmtree(folder)

    def put(self, file: Path, path: str) -> None:
        final = self.root / path
        if not final.parent.exists():
            final.parent.mkdir()
            _flush(self.root)
        _flush(share(file))
        os.replace(file, final)
        _flush(final.parent)

    @contextmanager
    def local(self, path: str) -> Iterator[Path]:
        if not (self.root / path).is_file():
            raise FileNotFoundError(f"{self.root / path} is missing")
        yield self.root / path

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def names(self, folder: str = "") -> list[str]:
        with suppress(FileNotFoundError, NotADirectoryError):
            return sorted(os.listdir(self.root / folder))
        return []

    def remove(self, path: str) -> None:
        found = self.root / path
        if found.is_dir():
            shutil.rmtree(found)
        else:
            found.unlink(missing_ok=True)


class RemotePlace(Place):
    """A root in a pyarrow file system. Calls that fail are tried again: networks do."""

    def __init__(self, filesystem: FileSystem, root: str, name: str) -> None:
        self._fs, self._root, self.name = filesystem, root.rstrip("/"), name

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}".rstrip("/")

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="rayalign-") as folder:
            yield Path(folder)

    def put(self, file: Path, path: str) -> None:
        def upload() -> None:
            try:
                sink = self._fs.open_output_stream(self._at(path))
            except FileNotFoundError:  # of those that have folders; in a bucket, making one may not even be allowed
                self._fs.create_dir(self._at(path).rpartition("/")[0], recursive=True)
                sink = self._fs.open_output_stream(self._at(path))
            with file.open("rb") as source, sink:
                shutil.copyfileobj(source, sink, CHUNK)

        _persevere(upload)

    @contextmanager
    def local(self, path: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="rayalign-") as folder:
            copy = Path(folder) / Path(path).name

            def download() -> None:
                with self._fs.open_input_stream(self._at(path)) as source, copy.open("wb") as sink:
                    shutil.copyfileobj(source, sink, CHUNK)

            _persevere(download)
            yield copy

    def read(self, path: str) -> bytes:
        def download() -> bytes:
            with self._fs.open_input_stream(self._at(path)) as source:
                return source.read()

        return _persevere(download)

    def names(self, folder: str = "") -> list[str]:
        from pyarrow.fs import FileSelector

        selector = FileSelector(self._at(folder), allow_not_found=True)
        return sorted(info.base_name for info in _persevere(lambda: self._fs.get_file_info(selector)))

    def remove(self, path: str) -> None:
        from pyarrow.fs import FileType

        def delete() -> None:
            kind = self._fs.get_file_info(self._at(path)).type
            if kind == FileType.Directory:
                self._fs.delete_dir(self._at(path))
            elif kind == FileType.File:
                self._fs.delete_file(self._at(path))

        _persevere(delete)


def open_place(uri: str) -> Place:
    """A folder's path or a URI -> the place. Raises ValueError or ImportError, saying why, if nothing can open it."""
    protocol, found, path = uri.partition("://")
    if not found:
        return LocalPlace(Path(uri).expanduser())
    if protocol == "file":
        return LocalPlace(Path(path))
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    if protocol in OF_PYARROW:
        filesystem, root = FileSystem.from_uri(uri)
        return RemotePlace(filesystem, root, uri)
    from fsspec.core import url_to_fs

    opened, root = url_to_fs(uri, use_listings_cache=False)  # another process may have written meanwhile
    return RemotePlace(PyFileSystem(FSSpecHandler(opened)), root, uri)


def _persevere(call: Callable[[], Answer]) -> Answer:
    """The call's answer, at one of a few tries. A file that is not there is an answer too."""
    for attempt in range(TRIES - 1):
        try:
            return call()
        except FileNotFoundError:
            raise
        except OSError:
            time.sleep(FIRST_PAUSE_S * 2**attempt)
    return call()


def _flush(path: Path) -> None:
    """Onto the disk, so that a power cut after the rename finds the bytes there."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
