"""The manifest of a teacher cache: its identity, its files with sizes and hashes, and atomic writes.

Knows files, sizes and hashes; knows nothing of what a shard holds, of models or losses.
"""

import hashlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.numpy import save

from apt_model.distill.teachers.cache.codec import ValueType
from apt_model.errors import ConfigError, StorageError
from apt_model.events.records import ModelCard
from apt_model.storage import sync

MANIFEST, ORDER, TEACHER = "manifest.json", "order.safetensors", "teacher"
OURS = (MANIFEST, ORDER, TEACHER, "shard-", ".tmp-")  # prefixes of the names in a cache directory


class _CacheRecord(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CacheSettings(_CacheRecord):
    """How logits are stored; part of the cache's identity.

    Attributes:
        k: logits kept at each position.
        temperature: of the training; the tail's mass is stored at this temperature and at 1.
        value_type: "log8" or "float16".
        max_length: tokens of a row at most.
        packing: whether rows were packed into blocks of `max_length`.
    """

    k: int
    temperature: float
    value_type: ValueType
    max_length: int
    packing: bool


class CacheIdentity(_CacheRecord):
    """The teacher, tokenizer, data and settings of a cache. Hashes are sha256 in hex.

    Attributes:
        teacher: hash of the weights and the config.
        card: readable summary of the teacher.
        config: hash of the config alone.
        tokenizer: hash of its vocabulary; None without one.
        data: hash of the keys of all rows.
        vocabulary: number of ids, from 0 on, that stand for a token.
        rows: number of distinct rows with a label.
        tokens: number of positions with a label.
        settings: how logits are stored.
    """

    schema_version: Literal[1] = 1
    teacher: str
    card: ModelCard
    config: str
    tokenizer: str | None
    data: str
    vocabulary: int
    rows: int
    tokens: int
    settings: CacheSettings

    def differences(self, other: "CacheIdentity") -> list[str]:
        """What differs from another identity, in words: "another teacher", "temperature 1.0 instead of 4.0"."""
        names = {"teacher": "another teacher", "tokenizer": "another tokenizer", "data": "other data"}
        mine, others = ({"vocabulary": one.vocabulary, **one.settings.model_dump()} for one in (self, other))
        return [text for name, text in names.items() if getattr(self, name) != getattr(other, name)] + differing(
            mine, others
        )


def differing(cached: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    """Settings of a cache that do not have the wanted value, in words: "k 64 instead of 128"."""
    return [f"{key} {cached[key]} instead of {value}" for key, value in wanted.items() if cached[key] != value]


class Shard(_CacheRecord):
    """The size and hash that a file of a cache should have."""

    file: str
    size: int
    sha256: str


class Manifest(_CacheRecord):
    """Identity and files of a cache; unfinished as long as it has fewer shards than `shard_count`.

    `seal` is the hash of the rest: it tells how the bytes of the files are to be read, so a changed digit would make
    other logits of them. None in caches from before there was one.
    """

    identity: CacheIdentity
    order: Shard
    shard_count: int
    shards: tuple[Shard, ...] = ()
    seal: str | None = None

    def sealed(self) -> "Manifest":
        """The same manifest with the seal that belongs to it."""
        rest = self.model_dump_json(exclude={"seal"})
        return self.model_copy(update={"seal": hashlib.sha256(rest.encode()).hexdigest()})


def read_manifest(directory: Path) -> Manifest | None:
    """Read the manifest of a cache; None if there is none.

    Raises:
        StorageError: it cannot be read, or is damaged.
    """
    path = directory / MANIFEST
    fix = f"delete {directory}, and cache the teacher again"
    try:
        if path.exists() and not path.is_file():
            raise StorageError(f"cache manifest {path} is no file", fix=fix)
        manifest = Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except StorageError:
        raise
    except (OSError, ValidationError) as error:
        got = error.strerror if isinstance(error, OSError) else str(error).replace("\n", " ")[:200]
        raise StorageError(f"cache manifest {path} is damaged", got=got, fix=fix) from error
    if manifest.seal not in (None, manifest.sealed().seal):
        raise StorageError(f"cache manifest {path} is damaged", got="a seal of another content", fix=fix)
    return manifest


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Replace the manifest atomically."""
    write_file(directory / MANIFEST, manifest.sealed().model_dump_json(indent=1).encode())


def write_shard(directory: Path, name: str, tensors: Mapping[str, NDArray[Any]]) -> Shard:
    """Write tensors as a safetensors shard, atomically; returns its size and hash."""
    content = save({key: np.ascontiguousarray(tensor) for key, tensor in tensors.items()})
    write_file(directory / name, content)
    return Shard(file=name, size=len(content), sha256=hashlib.sha256(content).hexdigest())


def write_file(path: Path, content: bytes) -> None:
    """Write a file atomically: under a temporary name, synced, then renamed; a failed attempt is removed.

    Raises:
        StorageError: no space, or no permission; says how many bytes were needed.
    """
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        need = f"{len(content):,} bytes, and a directory that can be written"
        raise StorageError(f"{path} cannot be written", got=error.strerror, expected=need) from error


def is_sound(directory: Path, shard: Shard) -> bool:
    """Whether a file exists with the size and hash that it should have."""
    path = directory / shard.file
    try:
        if not path.is_file() or path.stat().st_size != shard.size:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == shard.sha256
    except OSError:
        return False


def check_settings(settings: CacheSettings, batch_size: int) -> None:
    """Refuse settings out of their range.

    Raises:
        ConfigError: names the setting.
    """
    for name, value in (("k", settings.k), ("batch_size", batch_size)):
        if value < 1:
            raise ConfigError(f"{name} is too small", got=value, expected="1 or more")
    if not 0 < settings.temperature < math.inf:
        raise ConfigError("temperature is out of range", got=settings.temperature, expected="a number greater than 0")


def prepare_directory(directory: str | Path) -> Path:
    """Create the directory, check that it is writable, and remove temporary files that a killed run left.

    Raises:
        StorageError: it cannot be written, or holds files that are no cache's.
    """
    path = Path(directory)
    try:
        path.mkdir(parents=True, exist_ok=True)
        foreign = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith(OURS))
        if foreign:
            got = ", ".join(foreign[:3])
            expected = "an empty or new directory, or a cache"
            raise StorageError(f"{path} holds files that are not a cache's", got=got, expected=expected)
        for left_over in path.glob(".tmp-*"):
            left_over.unlink()
        probe = path / ".tmp-probe"
        probe.write_bytes(b"0")
        probe.unlink()
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"cache directory {path} cannot be written", got=error.strerror) from error
    return path
