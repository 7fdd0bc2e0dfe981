"""Atomic checkpoint directories, strict JSON, and a lock on a run directory.

A checkpoint is a directory of safetensors and JSON, written under a temporary name, synced, sealed by a manifest of
sizes and hashes, and then renamed: it is complete, or not there. Knows nothing of what is in it, and unpickles nothing.
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from apt_model import faults
from apt_model.errors import UNWRITTEN, StorageError, reason_of

SCHEMA_VERSION = 3  # 2: hashes of rows and models in the identity; 3: what each rank draws, its loader's numbers
IS_WINDOWS = os.name == "nt"
MANIFEST = "manifest.json"
_PREFIX, _TEMPORARY, _REPLACED = "step-", ".tmp-", ".old"

Writer = Callable[[Path], None]


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A damaged checkpoint, and what is wrong with it."""

    path: Path
    reason: str


def write_snapshot(folder: Path, step: int, files: Mapping[str, Writer], *, about_bytes: int = 0) -> Path:
    """Write a checkpoint directory below `folder`, atomically; returns it, complete and synced.

    Args:
        folder: holds the run's checkpoints; created if missing.
        step: optimizer steps done.
        files: by file name, a function that writes the file to a path; called in this order.
        about_bytes: expected size, for the message.

    Raises:
        StorageError: it could not be written; nothing of it is left, and older checkpoints are intact.
    """
    final, temporary = folder / snapshot_name(step), folder / f"{_TEMPORARY}{uuid.uuid4().hex[:12]}"
    try:
        temporary.mkdir(parents=True)
        faults.hit("checkpoint.begin")
        entries = {}
        for name, write in files.items():
            path = temporary / name
            write(path)
            sync(path)
            entries[name] = {"bytes": path.stat().st_size, "sha256": _sha256(path)}
            faults.hit(f"checkpoint.after_{name.partition('.')[0]}")
        manifest = {"schema": SCHEMA_VERSION, "step": step, "files": entries}
        manifest["sha256"] = _seal(manifest)
        _write_text(temporary / MANIFEST, json.dumps(manifest, indent=2) + "\n")
        sync(temporary / MANIFEST)
        sync(temporary)
        faults.hit("checkpoint.before_rename")
        before = final.with_name(final.name + _REPLACED)
        if final.exists():  # of the same step: until the new one is there it stays, under a name that `snapshots` finds
            shutil.rmtree(before, ignore_errors=True)
            final.rename(before)
            faults.hit("checkpoint.between_renames")
        temporary.rename(final)
        faults.hit("checkpoint.after_rename")
        shutil.rmtree(before, ignore_errors=True)
        sync(folder)
        faults.hit("checkpoint.end")
    except (*UNWRITTEN, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _unwritten(
            f"checkpoint of step {step} cannot be written to {folder}", error, folder, about_bytes
        ) from error
    return final


def write_whole(directory: Path, write: Writer, *, about_bytes: int) -> None:
    """Write a directory atomically, errors as `write_snapshot`: the new one is whole, or the old one still there."""
    unfinished, before = (directory.with_name(f".{directory.name}{end}") for end in ("", _REPLACED))
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        if before.exists() and not directory.exists():  # a kill between the two renames: this is the one that is whole
            before.rename(directory)
        shutil.rmtree(before, ignore_errors=True)
        faults.hit("whole.begin")
        write(unfinished)
        faults.hit("whole.before_rename")
        if directory.exists():
            directory.rename(before)
        faults.hit("whole.between_renames")
        unfinished.rename(directory)
    except (*UNWRITTEN, SafetensorError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        with suppress(OSError):
            before.rename(directory)
        raise _unwritten(f"{directory} cannot be written", error, directory, about_bytes) from error
    shutil.rmtree(before, ignore_errors=True)


def _unwritten(what: str, error: Exception, folder: Path, about_bytes: int) -> StorageError:
    fix, room = "free some space, or choose another run directory", f"about {about_bytes:,} bytes of free space"
    expected = f"{room} ({_free(folder)})" if about_bytes else None
    return StorageError(what, got=reason_of(error), expected=expected, fix=fix)


def snapshot_name(step: int) -> str:
    """The name of a step's checkpoint directory."""
    return f"{_PREFIX}{step:08}"


def snapshots(folder: Path) -> list[Path]:
    """All checkpoint directories below `folder`, oldest first, damaged ones included.

    Raises:
        StorageError: the folder cannot be read.
    """
    return [path for path in _listed(folder, _PREFIX) if path.is_dir()]


def unfinished_snapshots(folder: Path) -> list[Path]:
    """Temporary directories below `folder` of saves that a kill or a power cut interrupted."""
    return _listed(folder, _TEMPORARY)


def _listed(folder: Path, prefix: str) -> list[Path]:
    try:
        faults.hit("checkpoint.list")
        return sorted(folder.glob(f"{prefix}*"), key=lambda path: path.name)
    except UNWRITTEN as error:
        raise StorageError(f"{folder} cannot be read", got=reason_of(error)) from error


def newest_snapshot(folder: Path) -> tuple[Path | None, list[Skipped]]:
    """The newest intact checkpoint, or None, and the damaged ones that are newer."""
    skipped: list[Skipped] = []
    for path in reversed(snapshots(folder)):
        reason = why_damaged(path)
        if reason is None:
            return path, skipped
        skipped.append(Skipped(path=path, reason=reason))
    return None, skipped


def why_damaged(path: Path) -> str | None:
    """What is wrong with a checkpoint, naming the file; None if every byte is as it was written."""
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        if manifest.pop("sha256") != _seal(manifest):
            return f"{MANIFEST} has changed"
        schema, entries = manifest["schema"], dict(manifest["files"])
        if schema != SCHEMA_VERSION:
            return f"{MANIFEST} has schema {schema}, not {SCHEMA_VERSION}"
        for name, entry in entries.items():
            file = path / name
            if Path(name).name != name:
                return f"{MANIFEST} lists {name!r}, which is no file name"
            if not file.is_file():
                return f"{name} is missing"
            if file.stat().st_size != entry["bytes"]:
                return f"{name} has {file.stat().st_size} bytes, not {entry['bytes']}"
            if _sha256(file) != entry["sha256"]:
                return f"{name} has changed: its sha256 differs"
    except OSError as error:
        return f"{MANIFEST}: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, MemoryError) as error:
        return f"{MANIFEST} is not readable: {type(error).__name__}"
    return None


def prune(folder: Path, *, keep: int, spare: int | None = None) -> None:
    """Remove all checkpoints but the newest `keep` and that of step `spare`, and the remains of interrupted saves."""
    with suppress(*UNWRITTEN):  # what cannot be listed now is removed by a later save
        old = [path for path in snapshots(folder)[:-keep] if path.stem != snapshot_name(spare or 0)]
        for path in [*old, *unfinished_snapshots(folder)]:
            shutil.rmtree(path, ignore_errors=True)


def forget_after(folder: Path, checkpoint: Path) -> None:
    """Remove checkpoints newer than the one a run resumes from: they are damaged, or of steps to be done again."""
    for path in (path for path in snapshots(folder) if path.name > checkpoint.name):
        shutil.rmtree(path, ignore_errors=True)


def step_of(checkpoint: Path) -> int:
    """The optimizer step of a checkpoint, from its name."""
    return int(checkpoint.stem.removeprefix(_PREFIX))


def json_writer(value: Any) -> Writer:
    """A writer of strict JSON: NaN and infinity are `{"float": "nan"}`, other keys than strings `{"pairs": [...]}`.

    Raises:
        TypeError, ValueError, RecursionError: at once, if `value` holds something that is no JSON value, or itself.
    """
    text = json.dumps(_finite(value), allow_nan=False) + "\n"
    return lambda path: _write_text(path, text)


def read_json(path: Path) -> Any:
    """Read what `json_writer` wrote."""
    return json.loads(path.read_text("utf-8"), object_hook=_unpack)


@contextmanager
def one_writer(directory: Path) -> Iterator[None]:
    """Context manager: lock a run directory for this process; the lock of a process that died does not count.

    Raises:
        StorageError: another process holds the lock (its PID is named), or the lock cannot be written.
    """
    holder = directory / ".lock-holder"
    lock = FileLock(directory / ".lock", timeout=0)
    with ExitStack() as at_end:
        at_end.callback(_let_go, lock)
        try:
            faults.hit("lock.begin")
            lock.acquire()
            faults.hit("lock.acquired")
            _write_text(holder, str(os.getpid()))
            faults.hit("lock.end")
            at_end.callback(_remove_own, holder, holder.stat())
        except Timeout as error:
            what, fix = f"run directory {directory} is being written", "wait for it, or choose another run directory"
            raise StorageError(what, got=_holder(holder), fix=fix) from error
        except UNWRITTEN as error:
            raise _unwritten(f"run directory {directory} cannot be written", error, directory, 0) from error
        yield


def _let_go(lock: FileLock) -> None:
    with suppress(*UNWRITTEN):
        lock.release(force=True)


def _remove_own(holder: Path, own: os.stat_result) -> None:
    with suppress(*UNWRITTEN):  # gone with its directory or its disk, or another run's by now
        faults.hit("lock.release")
        if os.path.samestat(holder.stat(), own):
            holder.unlink()


def _holder(path: Path) -> str:
    """The process that holds a lock, by what it wrote there, if that can be read."""
    with suppress(OSError), path.open("rb") as file:
        if (said := file.read(12)).isdigit() and len(said) < 12:
            return f"process {int(said)}"
    return "another process"


def _seal(manifest: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _free(folder: Path) -> str:
    for path in (folder, *folder.parents):
        with suppress(OSError):  # it is not there, or its disk is gone
            return f"{shutil.disk_usage(path).free:,} are free"
    return "none is left"


def sync(path: Path) -> None:
    """fsync a file, or a directory so that its names are on the disk.

    Windows cannot open a directory (NTFS journals names itself), and syncs only files opened for writing.
    """
    if IS_WINDOWS and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if IS_WINDOWS else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return {"float": str(value)}
    if isinstance(value, Mapping) and not all(isinstance(key, str) for key in value):  # JSON would make 5 a "5"
        return {"pairs": [[key, _finite(item)] for key, item in value.items()]}
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _unpack(value: dict[str, Any]) -> Any:
    if value.keys() == {"pairs"}:
        return dict(value["pairs"])
    return float(value["float"]) if value.keys() == {"float"} else value
