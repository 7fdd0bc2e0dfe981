"""Read a cache of top-k logits, row by row, by hash key: what is not asked for is not read.

Knows keys, places and bytes; knows nothing of models or losses. All files are safetensors or JSON: nothing is ever
unpickled. Opening reads the manifest and the order; a file of the index is hashed when it is first used, and each
block checks itself whenever it is read (`blocks`).

    started.json                  identity and layout, written first: what all parts agree on
    order.safetensors             token ids, most frequent first
    shard-000000.safetensors ...  blocks of rows
    index-0000.safetensors ...    for each row's key, sorted: shard, first byte and size of its block
    manifest.json                 the same as started.json, and the index's sizes and sha256; written last
    teacher/                      the teacher's config and tokenizer, without weights
"""

from pathlib import Path

from safetensors.numpy import load

from apt_model.distill.teachers.cache.blocks import DamagedError, RowBlock, read_block
from apt_model.distill.teachers.cache.codec import Packing, StoredTopK
from apt_model.distill.teachers.cache.index import AGAIN, RowIndex, RowPlace, shard_name
from apt_model.distill.teachers.cache.manifest import ORDER, STARTED, is_sound, read_manifest
from apt_model.distill.teachers.cache.store import Store, open_store
from apt_model.errors import DataError, StorageError


class Cache:
    """A finished cache, open for reading.

    Args:
        where: directory or fsspec URL, as `writer.CacheWriter.run` left it.

    Raises:
        DataError: no cache, or an unfinished one.
        StorageError: damaged files, by name.
    """

    def __init__(self, where: str | Path | Store) -> None:
        self.store = open_store(where)
        manifest = read_manifest(self.store)
        if manifest is None:
            if read_manifest(self.store, STARTED) is not None:
                raise DataError(f"cache {self.store} is not finished", got="no manifest.json", fix=AGAIN)
            raise DataError(f"{self.store} holds no teacher cache", fix="make one with apt-model cache-teacher")
        if not is_sound(self.store, manifest.order):
            raise StorageError(f"cache {self.store} is damaged", got=ORDER, fix=AGAIN)
        self.identity, settings = manifest.identity, manifest.identity.settings
        order = load(self.store.read(ORDER) or b"")["order"]
        self._packing = Packing(order=order, k=settings.k, value_type=settings.value_type)
        self._key, self._index = manifest.key, RowIndex(self.store, manifest)

    def __contains__(self, key: bytes) -> bool:
        return self._index.find(key) is not None

    def __getitem__(self, key: bytes) -> StoredTopK:
        """Top-k logits of the row with this key, one entry for each position with a label, in order.

        Raises:
            KeyError: no such row. StorageError: its shard is damaged.
        """
        place = self._index.find(key)
        if place is None:
            raise KeyError(key)
        block = self._block(place)
        part = block.part_of(key)
        if part is None:
            raise self._damaged(place)
        return self._packing.unpack(block.packed, part)

    def _block(self, place: RowPlace) -> RowBlock:
        try:
            content = self.store.read(shard_name(place.shard), place.start, place.start + place.size)
            return read_block(content or b"", self._key)
        except DamagedError as error:
            raise self._damaged(place) from error

    def _damaged(self, place: RowPlace) -> StorageError:
        return StorageError(f"cache {self.store} is damaged", got=shard_name(place.shard), fix=AGAIN)
