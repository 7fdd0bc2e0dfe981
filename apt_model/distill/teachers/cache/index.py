"""The row index of a cache: by the hash key of a row, the block that holds it; in files that are mapped, not read.

It is made from the tables of all shards, sorted in bounded memory. Knows keys and places; knows nothing of models.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from apt_model.distill.teachers.cache.blocks import DamagedError, Table, read_table, table_size, tensor_places
from apt_model.distill.teachers.cache.manifest import IndexFile, Manifest, write_tensors
from apt_model.distill.teachers.cache.sorting import BucketSort, Records, as_records
from apt_model.distill.teachers.cache.store import Store
from apt_model.errors import StorageError

FILE_ROWS = 2**20  # at least, in a file of the index: 32 MiB
BEGINNING = 2**16  # bytes of a shard that are read first: mostly its whole table
AGAIN = "run the same apt-model cache-teacher command again: it writes what is missing"


class RowPlace(NamedTuple):
    """Where a block is: the shard's number, its first byte in that file, and its bytes."""

    shard: int
    start: int
    size: int


class RowIndex:
    """Finds blocks by row keys. A file of the index is hashed when a key is first looked up in it.

    Args:
        store: of the cache.
        manifest: of a finished cache.
    """

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self._store, self._files = store, manifest.index
        self._first_buckets = [file.first_bucket for file in manifest.index]
        self._opened = cache(self._open)

    def find(self, key: bytes) -> RowPlace | None:
        """The block that holds the row with this key; None if no block does.

        Raises:
            StorageError: the index is damaged.
        """
        high, low = np.frombuffer(key, dtype=np.uint64)
        part = self._opened(bisect_right(self._first_buckets, int(high) >> 56) - 1)
        at = int(np.searchsorted(part["high"], high))
        while at < len(part["high"]) and part["high"][at] == high:
            if part["low"][at] == low:
                return RowPlace(*(int(part[name][at]) for name in RowPlace._fields))
            at += 1
        return None

    def _open(self, number: int) -> dict[str, NDArray[np.int64]]:
        """The arrays of a file of the index, mapped."""
        file = self._files[number]
        try:
            path = self._store.local(file.file)
            if not path.is_file():  # nor a pipe, nor a device
                raise DamagedError
            with path.open("rb") as opened:
                places = tensor_places(opened.read(BEGINNING))
                opened.seek(0)
                if hashlib.file_digest(opened, "sha256").hexdigest() != file.sha256:
                    raise DamagedError
            return {
                name: np.memmap(path, dtype, mode="r", offset=start, shape=(count,))
                for name, (dtype, start, count) in places.items()
            }
        except (DamagedError, OSError) as error:
            raise StorageError(f"cache {self._store} is damaged", got=file.file, fix=AGAIN) from error


def shard_name(number: int) -> str:
    """The file of a shard."""
    return f"shard-{number:06}.safetensors"


def load_table(store: Store, name: str, cache_key: bytes) -> Table:
    """Read a shard's table, without its blocks.

    Raises:
        StorageError: it is damaged, or another cache's.
    """
    try:
        content = store.read(name, 0, BEGINNING) or b""
        size = table_size(content)
        if size > len(content):
            content += store.read(name, len(content), size) or b""
        return read_table(content, cache_key)
    except DamagedError as error:
        fix = "run the part that writes it again"
        raise StorageError(f"{store}/{name} is damaged, or a shard of another cache", fix=fix) from error


def write_index(store: Store, started: Manifest) -> tuple[IndexFile, ...]:
    """Write the index of a cache whose shards are all there.

    Raises:
        StorageError: a shard is damaged, or the index cannot be written.
    """
    by_key = BucketSort([(name, np.int64) for name in RowPlace._fields])
    for number in range(started.shard_count):
        by_key.add(_records(number, load_table(store, shard_name(number), started.key)))
    return tuple(
        IndexFile(first_bucket=bucket, **_write(store, number, records))
        for number, (bucket, records) in enumerate(_files(by_key))
    )


def _records(number: int, table: Table) -> Records:
    """A record for each row of a shard: its key and its block's place."""
    fields = {
        "shard": np.full(len(table.keys), number, np.int64),
        "start": np.repeat(table.starts[:-1], table.rows),
        "size": np.repeat(np.diff(table.starts), table.rows),
    }
    return as_records(table.keys, fields)


def _files(by_key: BucketSort) -> Iterator[tuple[int, Records]]:
    """(first bucket, records) of each file: as many whole buckets as make FILE_ROWS."""
    first, waiting = 0, list[Records]()
    for bucket, records in enumerate(by_key):
        waiting.append(records)
        if sum(map(len, waiting)) >= FILE_ROWS:
            yield first, np.concatenate(waiting)
            first, waiting = bucket + 1, []
    if any(map(len, waiting)):
        yield first, np.concatenate(waiting)


def _write(store: Store, number: int, records: Records) -> dict[str, object]:
    columns = {name: records[name] for name in records.dtype.names or ()}
    return write_tensors(store, f"index-{number:04}.safetensors", columns).model_dump()
