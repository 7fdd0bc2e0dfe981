"""The files of a cache, in a local directory or behind any fsspec URL (`s3://…`, `memory://…`, `https://…`).

A file is written whole. In a directory it is synced under a temporary name and renamed. A store of objects shows an
object once all of it is there. Where a store has neither (sftp, say), a killed writer can leave half a file under its
own name: blocks, tables and manifests carry checksums, so it is taken for damaged, and made again. And the manifest is
written last: without one there is no cache. Knows nothing of what is in a file.
"""

import os
import shutil
import socket
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import fsspec  # type: ignore[import-untyped]

from apt_model.errors import ConfigError, StorageError, is_of_library, reason_of
from apt_model.storage import sync

_TEMPORARY = ".tmp-"


class Store(Protocol):
    """A directory of files, named relative to it; `str()` is what the user called it.

    Every method raises StorageError where the store refuses.
    """

    def names(self) -> set[str]:
        """The names in the directory itself, but for those of files that are being written."""

    def prepare(self) -> None:
        """Make the directory, and find out whether it can be written."""

    def tidy(self) -> None:
        """Remove what killed writers left, once every file is there."""

    def free_bytes(self) -> int | None:
        """Free space; None where there is no telling."""

    def read(self, name: str, start: int = 0, end: int | None = None) -> bytes | None:
        """Bytes of a file from `start` to before `end`, fewer where it ends; None if there is no such file."""

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole."""

    def local(self, name: str) -> Path:
        """The path of a file, or of a directory of files, on this machine: a copy, if the store is elsewhere."""


def open_store(where: str | Path | Store) -> Store:
    """The store that a path or URL names.

    Raises:
        ConfigError: an unknown kind of URL, or one whose package is not installed.
    """
    if not isinstance(where, str | Path):
        return where
    url = str(where)
    if url.startswith("file://"):
        return LocalStore(Path(url.removeprefix("file://")))
    return RemoteStore(url) if "://" in url else LocalStore(Path(where))


class LocalStore:
    """A directory on this machine, or one that is mounted."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __str__(self) -> str:
        return str(self._directory)

    def names(self) -> set[str]:
        """The names in the directory, but for those of files that are being written."""
        with _asking(f"{self} cannot be read"):
            if not self._directory.exists():
                return set()
            return {entry.name for entry in self._directory.iterdir() if not entry.name.startswith(_TEMPORARY)}

    def prepare(self) -> None:
        """Make the directory, and find out whether it can be written."""
        with _asking(f"cache directory {self} cannot be written"):
            self._directory.mkdir(parents=True, exist_ok=True)
            probe = self._temporary(self._directory / "probe")
            probe.write_bytes(b"0")
            probe.unlink()

    def tidy(self) -> None:
        """Remove what killed writers left; a writer that is at work finds its file in place, and goes on."""
        with _asking(f"{self} cannot be written"):
            for left_over in self._directory.rglob(f"{_TEMPORARY}*"):
                left_over.unlink(missing_ok=True)

    def free_bytes(self) -> int | None:
        """Free space on the disk."""
        with _asking(f"{self} cannot be read"):
            return shutil.disk_usage(self._directory).free

    def read(self, name: str, start: int = 0, end: int | None = None) -> bytes | None:
        """Bytes of a file; None if there is no such file."""
        path = self._directory / name
        with _asking(f"{path} cannot be read"):
            if not path.is_file():  # nor a pipe, nor a device
                return None
            with path.open("rb", buffering=0) as file:
                file.seek(start)
                return file.read() if end is None else file.read(max(end - start, 0))

    def write(self, name: str, content: bytes) -> None:
        """Write a file under a temporary name, sync it, rename it; a failed attempt is removed."""
        path = self._directory / name
        temporary = self._temporary(path)
        try:
            path.parent.mkdir(exist_ok=True)
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            try:
                temporary.replace(path)
            except FileNotFoundError:
                if not path.is_file():  # else another process has written the same, and tidied up
                    raise
            sync(path.parent)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            need = f"{len(content):,} bytes, and a directory that can be written"
            raise StorageError(f"{path} cannot be written", got=error.strerror, expected=need) from error

    def local(self, name: str) -> Path:
        """The path itself."""
        return self._directory / name

    def _temporary(self, path: Path) -> Path:
        return path.with_name(f"{_TEMPORARY}{socket.gethostname()}-{os.getpid()}-{path.name}")


class RemoteStore:
    """A place that fsspec reaches by URL; what is mapped or opened by other libraries is copied to this machine."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        try:
            self._system, self._root = fsspec.core.url_to_fs(self._url)
        except (ImportError, ValueError) as error:
            fix = "pip install the package that fsspec names for this kind of URL, or use a directory"
            raise ConfigError(f"{url} cannot be opened", got=reason_of(error), fix=fix) from error
        self._copies = Path(tempfile.mkdtemp(prefix="apt-model-cache-"))
        weakref.finalize(self, shutil.rmtree, self._copies, ignore_errors=True)

    def __str__(self) -> str:
        return self._url

    def names(self) -> set[str]:
        """The names in the directory."""
        with _asking(f"{self} cannot be listed"):
            try:
                self._system.invalidate_cache()
                listed = self._system.ls(self._root, detail=False)
            except FileNotFoundError:
                return set()
            return {path.rstrip("/").rpartition("/")[2] for path in listed}

    def prepare(self) -> None:
        """Make the directory, where the store has directories."""
        with _asking(f"{self} cannot be written"):
            self._system.makedirs(self._root, exist_ok=True)

    def tidy(self) -> None:
        """Nothing to remove: no temporary names are used."""

    def free_bytes(self) -> int | None:
        """None: a store does not tell."""
        return None

    def read(self, name: str, start: int = 0, end: int | None = None) -> bytes | None:
        """Bytes of an object; None if there is no such object."""
        with _asking(f"{self}/{name} cannot be read"):
            try:
                content: bytes = self._system.cat_file(f"{self._root}/{name}", start=start or None, end=end)
            except (FileNotFoundError, IsADirectoryError):
                return None
            return content

    def write(self, name: str, content: bytes) -> None:
        """Write an object, in one request or one upload in parts."""
        with _asking(f"{self}/{name} cannot be written"):
            if "/" in name:
                self._system.makedirs(f"{self._root}/{name.rpartition('/')[0]}", exist_ok=True)
            self._system.pipe_file(f"{self._root}/{name}", content)

    def local(self, name: str) -> Path:
        """A copy that lasts as long as this store is open; of a directory, all files in it."""
        copy = self._copies / name
        if not copy.exists():
            with _asking(f"{self}/{name} cannot be read"):
                source = f"{self._root}/{name}"
                self._system.get(source, str(copy), recursive=self._system.isdir(source))
        return copy


@contextmanager
def _asking(what: str) -> Iterator[None]:
    """Context manager: whatever a store's library raises becomes one line."""
    try:
        yield
    except StorageError:
        raise
    except BaseException as error:
        if not is_of_library(error):
            raise
        raise StorageError(what, got=reason_of(error)) from error
