"""The manifest of a teacher cache: its identity, its layout, and its files with sizes and hashes.

Knows files, sizes and hashes; knows nothing of what a shard holds, of models or losses.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from safetensors.numpy import save

from apt_model.distill.teachers.cache.codec import ValueType
from apt_model.distill.teachers.cache.store import Store
from apt_model.errors import ConfigError, DataError, StorageError
from apt_model.events.records import ModelCard

STARTED, MANIFEST, ORDER, TEACHER = "started.json", "manifest.json", "order.safetensors", "teacher"
OURS = (STARTED, MANIFEST, ORDER, TEACHER, "shard-", "index-")  # prefixes of the names in a cache directory
OLDER = (1,)  # schema versions; 2: parts, blocks with checksums, a row index in files of its own


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

    schema_version: Literal[2] = 2
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


class CacheFile(_CacheRecord):
    """The size and hash that a file of a cache should have."""

    file: str
    size: int
    sha256: str


class IndexFile(CacheFile):
    """A part of the row index: all rows whose key's top byte is `first_bucket`, or above it and in no later part."""

    first_bucket: int


class Manifest(_CacheRecord):
    """Identity and layout of a cache; of a finished one also its row index.

    The one without an index (`started.json`) is written before the first shard, and says what every part must agree
    on; the other (`manifest.json`) is written last. `seal` is the hash of the rest: it tells how the bytes of the files
    are to be read, so a changed digit would make other logits of them.
    """

    identity: CacheIdentity
    order: CacheFile
    shard_count: int
    shard_positions: int
    index: tuple[IndexFile, ...] = ()
    seal: str = ""

    def sealed(self) -> "Manifest":
        """The same manifest with the seal that belongs to it."""
        rest = self.model_dump_json(exclude={"seal"})
        return self.model_copy(update={"seal": hashlib.sha256(rest.encode()).hexdigest()})

    @property
    def key(self) -> bytes:
        """32 bytes that go into every checksum, so that a block or table of another cache is not taken for one."""
        return bytes.fromhex(self.model_copy(update={"index": ()}).sealed().seal)


def read_manifest(store: Store, name: str = MANIFEST) -> Manifest | None:
    """Read the manifest of a finished cache, or STARTED; None if there is none.

    Raises:
        StorageError: it cannot be read, or is damaged. DataError: an older version of this package made it.
    """
    fix = f"delete {store}, and cache the teacher again"
    content = store.read(name)
    if content is None:
        return None
    try:
        _refuse_older(json.loads(content), f"{store}")
        manifest = Manifest.model_validate_json(content)
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        got = str(error).replace("\n", " ")[:200]
        raise StorageError(f"cache manifest {store}/{name} is damaged", got=got, fix=fix) from error
    if manifest.seal != manifest.sealed().seal:
        raise StorageError(f"cache manifest {store}/{name} is damaged", got="a seal of another content", fix=fix)
    return manifest


def _refuse_older(content: Any, where: str) -> None:
    identity = content.get("identity") if isinstance(content, dict) else None
    schema = identity.get("schema_version") if isinstance(identity, dict) else None
    if schema in OLDER:
        what, fix = f"cache {where} was made by an older version", "cache the teacher again, into another directory"
        raise DataError(what, got=f"schema {schema}", expected="schema 2", fix=fix)


def write_manifest(store: Store, name: str, manifest: Manifest) -> None:
    """Write a manifest with its seal."""
    store.write(name, manifest.sealed().model_dump_json(indent=1).encode())


def write_tensors(store: Store, name: str, tensors: Mapping[str, NDArray[Any]]) -> CacheFile:
    """Write tensors as a safetensors file; returns its size and hash."""
    content = save({key: np.ascontiguousarray(tensor) for key, tensor in tensors.items()})
    store.write(name, content)
    return CacheFile(file=name, size=len(content), sha256=hashlib.sha256(content).hexdigest())


def is_sound(store: Store, file: CacheFile) -> bool:
    """Whether a file exists with the size and hash that it should have."""
    content = store.read(file.file, 0, file.size + 1)
    return content is not None and hashlib.sha256(content).hexdigest() == file.sha256


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


def prepare_store(store: Store) -> None:
    """Make a store ready to take a cache.

    Raises:
        StorageError: it cannot be written, or holds files that are no cache's.
    """
    foreign = sorted(name for name in store.names() if not name.startswith(OURS))
    if foreign:
        got, expected = ", ".join(foreign[:3]), "an empty or new directory, or a cache"
        raise StorageError(f"{store} holds files that are not a cache's", got=got, expected=expected)
    store.prepare()
