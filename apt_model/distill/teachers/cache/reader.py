"""Read a cache of top-k logits: memory-mapped safetensors shards, with rows looked up by their hash key.

Knows keys, places and bytes; knows nothing of models or losses. Shards are safetensors, the rest is JSON: nothing is
ever unpickled. A shard is written under a temporary name, synced and renamed, so one under its own name is complete.

    manifest.json                identity of the cache, and its shards with sizes and sha256
    order.safetensors            token ids, most frequent first
    shard-00000.safetensors ...  keys (R, 2), places (R, 3: block, first position, positions), offsets, blocks
    teacher/                     the teacher's config and tokenizer, without weights
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file

from apt_model.distill.teachers.cache.codec import Packing, StoredTopK
from apt_model.distill.teachers.cache.manifest import ORDER, is_sound, read_manifest
from apt_model.errors import DataError, StorageError
from apt_model.models.fingerprints import KEY_BYTES


class Cache:
    """A finished cache, open for reading.

    Args:
        directory: as `writer.CacheWriter.run` left it.

    Raises:
        DataError: no cache, or an unfinished one.
        StorageError: damaged files, by name.
    """

    def __init__(self, directory: Path) -> None:
        manifest = read_manifest(directory)
        again = "run the same apt-model cache-teacher command again: it writes what is missing"
        if manifest is None:
            raise DataError(f"{directory} holds no teacher cache", fix="make one with apt-model cache-teacher")
        if len(manifest.shards) < manifest.shard_count:
            done = f"{len(manifest.shards)} of {manifest.shard_count} shards"
            raise DataError(f"cache {directory} is not finished", got=done, fix=again)
        broken = [shard.file for shard in (manifest.order, *manifest.shards) if not is_sound(directory, shard)]
        if broken:
            raise StorageError(f"cache {directory} is damaged", got=", ".join(broken[:3]), fix=again)
        self.identity, settings = manifest.identity, manifest.identity.settings
        order = load_file(directory / ORDER)["order"]
        self._packing = Packing(order=order, k=settings.k, value_type=settings.value_type)
        self._files = [_Mapped(directory / shard.file) for shard in manifest.shards]
        keys = np.concatenate([file.tensors["keys"] for file in self._files])
        files = np.repeat(np.arange(len(self._files)), [len(file.tensors["keys"]) for file in self._files])
        places = np.concatenate([file.tensors["places"] for file in self._files])
        by_key = np.lexsort((keys[:, 1], keys[:, 0]))
        self._keys, self._places = keys[by_key], np.column_stack([files, places])[by_key]

    def __contains__(self, key: bytes) -> bool:
        return self._find(key) is not None

    def __getitem__(self, key: bytes) -> StoredTopK:
        """Top-k logits of the row with this key, one entry for each position with a label, in order.

        Raises:
            KeyError: no such row.
        """
        place = self._find(key)
        if place is None:
            raise KeyError(key)
        file, block, first, count = map(int, place)
        return self._packing.unpack(self._files[file].block(block), slice(first, first + count))

    def _find(self, key: bytes) -> NDArray[np.int64] | None:
        high, low = np.frombuffer(key, dtype=np.uint64)
        at = np.searchsorted(self._keys[:, 0], high)
        while at < len(self._keys) and self._keys[at, 0] == high:
            if self._keys[at, 1] == low:
                found: NDArray[np.int64] = self._places[at]
                return found
            at += 1
        return None


class _Mapped:
    """A shard: its index in memory, its blocks read from the memory-mapped file on access."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = safe_open(path, framework="numpy")
            read, part = self._file.get_tensor, self._file.get_slice
            self.tensors = {name: read(name) for name in ("keys", "places", "offsets")}  # type: ignore[no-untyped-call]
            self._blocks = part("blocks")  # type: ignore[no-untyped-call]
        except (OSError, SafetensorError) as error:
            raise StorageError(f"{path} cannot be read", got=str(error)) from error

    def block(self, number: int) -> bytes:
        start, end = self.tensors["offsets"][number : number + 2].tolist()
        raw: bytes = self._blocks[start:end].tobytes()
        return raw


def shard_tensors(rows: Sequence[tuple[bytes, int]], blocks: Sequence[tuple[int, bytes]]) -> dict[str, NDArray[Any]]:
    """The tensors of a shard file, by name.

    Args:
        rows: (key, number of positions) of each row.
        blocks: (number of rows, packed bytes) of each block.
    """
    places, at = [], 0
    for number, (count, _) in enumerate(blocks):
        first = 0
        for _, positions in rows[at : at + count]:
            places.append((number, first, positions))
            first += positions
        at += count
    return {
        "keys": np.frombuffer(b"".join(key for key, _ in rows), dtype=np.uint64).reshape(-1, KEY_BYTES // 8),
        "places": np.array(places, dtype=np.int32),
        "offsets": np.cumsum([0, *(len(block) for _, block in blocks)], dtype=np.int64),
        "blocks": np.frombuffer(b"".join(block for _, block in blocks), dtype=np.uint8),
    }


def hash_keys(keys: Sequence[bytes]) -> str:
    """sha256 over row keys, in order."""
    return hashlib.sha256(b"".join(keys)).hexdigest()
