"""Files of a checkpoint on other systems, and a run directory that cannot even be locked."""

import os
from pathlib import Path

import pytest

from apt_model import storage
from apt_model.errors import StorageError
from apt_model.storage import one_writer, write_snapshot


def test_where_directories_cannot_be_opened_only_files_are_synced_and_writable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Windows does it: a directory cannot be opened, and what was opened for reading cannot be synced."""
    opened, modes = os.open, {}

    def open_there(path: Path, mode: int) -> int:
        if Path(path).is_dir():
            raise PermissionError(13, "Permission denied")
        descriptor = opened(path, mode)
        modes[descriptor] = mode
        return descriptor

    def sync_there(descriptor: int) -> None:
        if modes[descriptor] & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(9, "Bad file descriptor")

    monkeypatch.setattr(os, "open", open_there)
    monkeypatch.setattr(os, "fsync", sync_there)
    files = {"weights.bin": lambda path: path.write_bytes(b"1234")}
    with pytest.raises(StorageError):
        write_snapshot(tmp_path, 1, files)
    monkeypatch.setattr(storage, "IS_WINDOWS", True)
    kept = write_snapshot(tmp_path, 1, files)
    assert storage.why_damaged(kept) is None


def test_a_directory_that_cannot_be_locked_is_a_storage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(storage, "_write_text", full)
        with pytest.raises(StorageError, match="cannot be written; got No space left on device"), one_writer(tmp_path):
            raise AssertionError("held without a lock")
    with one_writer(tmp_path):  # what failed holds nothing
        pass
