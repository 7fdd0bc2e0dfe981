"""Blocks and shards of a cache as bytes that check themselves: a damaged or foreign one is noticed whenever it is read.

A block is what is read at a time: a checksum, the keys and lengths of its rows, and their packed positions. A shard is
a safetensors file of blocks, with a table of what is in it in front of them. Knows bytes; knows nothing of files.

    keys     (R, 2) uint64   of its rows, in order
    seal     (4,) uint64     checksum of the table, which is everything but the blocks
    offsets  (B + 1,) int64  where each block begins
    rows     (B,) int32      number of rows in each block
    blocks   uint8           one after the other, up to the end of the file
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

DIGEST_BYTES = 16
TABLE = ("keys", "offsets", "rows")
_DTYPES = {"U64": np.uint64, "I64": np.int64, "I32": np.int32, "U8": np.uint8}


class DamagedError(Exception):
    """Bytes are not those that were written, or were written for another cache."""


@dataclass(frozen=True, kw_only=True)
class RowBlock:
    """Some rows with their positions.

    Attributes:
        keys: (R, 2) uint64.
        counts: (R,) int32; positions of each row.
        packed: of all its positions, as the codec makes them.
    """

    keys: NDArray[np.uint64]
    counts: NDArray[np.int32]
    packed: bytes

    def to_bytes(self, cache_key: bytes) -> bytes:
        """The block with its checksum."""
        counts = self.counts.astype("<i4")
        body = np.array([len(counts)], "<i4").tobytes() + self.keys.tobytes() + counts.tobytes() + self.packed
        return _digest(body, cache_key) + body

    def part_of(self, key: bytes) -> slice | None:
        """The positions of the row with this key; None if it is not here."""
        found = np.flatnonzero((self.keys == np.frombuffer(key, np.uint64)).all(axis=1))
        if not len(found):
            return None
        first = int(self.counts[: found[0]].sum())
        return slice(first, first + int(self.counts[found[0]]))


def read_block(content: bytes, cache_key: bytes) -> RowBlock:
    """A block, if every byte is as it was written.

    Raises:
        DamagedError: it is not.
    """
    body = content[DIGEST_BYTES:]
    if len(body) < 4 or _digest(body, cache_key) != content[:DIGEST_BYTES]:
        raise DamagedError
    rows = int(np.frombuffer(body, "<i4", 1)[0])
    return RowBlock(
        keys=np.frombuffer(body, np.uint64, 2 * rows, 4).reshape(-1, 2),
        counts=np.frombuffer(body, "<i4", rows, 4 + 16 * rows),
        packed=body[4 + 20 * rows :],
    )


@dataclass(frozen=True, kw_only=True)
class Table:
    """What is in a shard.

    Attributes:
        keys: (R, 2) uint64 of its rows, block by block.
        rows: (B,) int32; rows of each block.
        starts: (B + 1,) int64; where each block begins in the file, and where the last one ends.
    """

    keys: NDArray[np.uint64]
    rows: NDArray[np.int32]
    starts: NDArray[np.int64]


def shard_bytes(blocks: Sequence[RowBlock], cache_key: bytes) -> bytes:
    """The content of a shard's file."""
    packed = [block.to_bytes(cache_key) for block in blocks]
    table = {
        "keys": np.concatenate([block.keys for block in blocks]),
        "offsets": np.cumsum([0, *map(len, packed)], dtype=np.int64),
        "rows": np.array([len(block.keys) for block in blocks], dtype=np.int32),
    }
    return save({**table, "seal": _seal(table, cache_key), "blocks": np.frombuffer(b"".join(packed), np.uint8)})


def table_size(beginning: bytes) -> int:
    """Bytes of a shard before its first block, from the first bytes of the file; more than those, if it is not there.

    Raises:
        DamagedError: this is no shard.
    """
    return _blocks_start(*_header(beginning))


def read_table(content: bytes, cache_key: bytes) -> Table:
    """The table of a shard, from its file's first `table_size` bytes or more.

    Raises:
        DamagedError: it is damaged, or another cache's.
    """
    header, data = _header(content)
    table = {name: _tensor(content, header, data, name) for name in (*TABLE, "seal")}
    if not np.array_equal(table["seal"], _seal(table, cache_key)):
        raise DamagedError
    return Table(keys=table["keys"], rows=table["rows"], starts=table["offsets"] + _blocks_start(header, data))


def is_sound_shard(content: bytes, cache_key: bytes) -> bool:
    """Whether every byte of a shard is as it was written."""
    try:
        starts = read_table(content, cache_key).starts.tolist()
        for start, end in pairwise(starts):
            read_block(content[start:end], cache_key)
    except DamagedError:
        return False
    return bool(len(content) == starts[-1])


def tensor_places(beginning: bytes) -> dict[str, tuple[Any, int, int]]:
    """Of each tensor in a safetensors file its dtype, first byte and number of elements, to map it from disk.

    Raises:
        DamagedError: this is no such file.
    """
    header, data = _header(beginning)
    places = {}
    for name in header:
        dtype, start, end = _place(header, name)
        places[name] = dtype, data + start, (end - start) // np.dtype(dtype).itemsize
    return places


def _header(content: bytes) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where its data begins."""
    try:
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + min(size, 2**20)])
    except (ValueError, RecursionError) as error:
        raise DamagedError from error
    if not isinstance(header, dict):
        raise DamagedError
    return header, 8 + size


def _place(header: dict[str, Any], name: str) -> tuple[Any, int, int]:
    try:
        entry = header[name]
        start, end = map(int, entry["data_offsets"])
        dtype = _DTYPES[entry["dtype"]]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DamagedError from error
    if not 0 <= start <= end or (end - start) % np.dtype(dtype).itemsize:
        raise DamagedError
    return dtype, start, end


def _blocks_start(header: dict[str, Any], data: int) -> int:
    return data + _place(header, "blocks")[1]


def _tensor(content: bytes, header: dict[str, Any], data: int, name: str) -> NDArray[Any]:
    dtype, start, end = _place(header, name)
    if data + end > len(content):
        raise DamagedError
    flat = np.frombuffer(content, dtype, (end - start) // np.dtype(dtype).itemsize, data + start)
    if name != "keys":
        return flat
    if len(flat) % 2:
        raise DamagedError
    return flat.reshape(-1, 2)


def _seal(table: dict[str, NDArray[Any]], cache_key: bytes) -> NDArray[np.uint64]:
    digest = hashlib.blake2b(digest_size=32, key=cache_key)
    for name in TABLE:
        digest.update(np.ascontiguousarray(table[name]).tobytes())
    return np.frombuffer(digest.digest(), np.uint64)


def _digest(body: bytes, cache_key: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=DIGEST_BYTES, key=cache_key).digest()
