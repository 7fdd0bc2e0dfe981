"""Run a teacher once over the data and cache its top-k logits, so that students can be trained without it.

Knows the teacher, the rows and the cache's files; knows nothing of students, losses or screens. An interrupted run goes
on where it stopped, and leaves the same bytes as one that was not interrupted.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import nn

from apt_model.config.sections import WideMatmul
from apt_model.distill.teachers.cache.answers import LiveTopK, TopKSource
from apt_model.distill.teachers.cache.blocks import RowBlock, is_sound_shard, shard_bytes
from apt_model.distill.teachers.cache.codec import Packing, StoredTopK, concatenate, empty
from apt_model.distill.teachers.cache.estimate import Estimate, Sample
from apt_model.distill.teachers.cache.index import shard_name, write_index
from apt_model.distill.teachers.cache.manifest import (
    MANIFEST,
    ORDER,
    STARTED,
    TEACHER,
    CacheFile,
    CacheIdentity,
    CacheSettings,
    Manifest,
    check_settings,
    is_sound,
    prepare_store,
    read_manifest,
    write_manifest,
    write_tensors,
)
from apt_model.distill.teachers.cache.parts import Part
from apt_model.distill.teachers.cache.rows import DistinctRows
from apt_model.distill.teachers.cache.store import Store, open_store
from apt_model.distill.teachers.cache.topk import MeasuredTopK, join
from apt_model.errors import DataError, ModelError, StorageError
from apt_model.models.fingerprints import hash_config, hash_tokenizer
from apt_model.models.generation_settings import savable_settings
from apt_model.models.out_of_memory import out_of_memory_told

BLOCK_POSITIONS = 512  # packed together: fewer, and tables cost more; more, and a lookup unpacks what it does not need
SHARD_POSITIONS = 2**14  # at least, until there are 512 shards; lost at most when a run is cut off
MOST_SHARDS = 512  # unless they would be larger than this, which is made in memory:
SHARD_BYTES = 2**27  # before compression
WHOLE = Part()
REMEDY = "set a smaller batch_size or max_length, or take a smaller teacher"

OnProgress = Callable[[int, int], None]


class CacheWriter:
    """Writes the cache of a teacher's top-k logits on the rows of a data set.

    The constructor reads every row once, and runs the teacher on a sample of them.

    Args:
        teacher: maps token ids (B, L) to logits (B, L, V), unchanged afterwards; or any other source of top-k logits.
        rows: a `datasets.Dataset` from `tokenize_dataset`, or a sequence of rows that `to_batch` takes; equal rows
            are cached once, rows without a label not at all.
        tokenizer: the teacher's.
        settings: how logits are stored; k is at most the vocabulary.
        batch_size: rows the teacher reads at once.
        device, wide_matmul: of a model, as in `LiveTopK`.

    Raises:
        DataError: no row has a label, or a row that the teacher cannot read. ModelError: it is not causal.
        OutOfMemoryError: the teacher, or what it makes of a batch, does not fit; also in `run`.
    """

    @out_of_memory_told("caching the teacher", REMEDY)
    def __init__(
        self,
        teacher: nn.Module | TopKSource,
        rows: Any,
        *,
        settings: CacheSettings,
        tokenizer: Any = None,
        device: torch.device | None = None,
        batch_size: int = 8,
        wide_matmul: WideMatmul = "auto",
    ) -> None:
        check_settings(settings, batch_size)
        if isinstance(teacher, nn.Module):
            teacher = LiveTopK(teacher, tokenizer=tokenizer, device=device, wide_matmul=wide_matmul)
        self._source, self._tokenizer, self._batch_size, self._settings = teacher, tokenizer, batch_size, settings
        self._rows = DistinctRows(rows, tokenizer=tokenizer, max_length=settings.max_length, check=teacher.check)
        self._sample = self._ask_sample()
        self._vocabulary = self._sample.measured.vocabulary
        self._settings = settings.model_copy(update={"k": min(settings.k, self._vocabulary)})
        self.identity = self._identify()
        self._order = _by_frequency(self._rows.frequencies, self._vocabulary)
        how = self._settings
        self._packing = Packing(order=self._order, k=how.k, value_type=how.value_type)
        self._started = self._start()

    @property
    def uses_onednn(self) -> bool:
        """Whether float32 products of the sample went through oneDNN."""
        return isinstance(self._source, LiveTopK) and self._source.uses_onednn

    def refuse_other(self, where: str | Path | Store) -> None:
        """Refuse a directory or URL with a cache of another teacher, tokenizer, data or settings.

        Raises:
            DataError: names what differs.
        """
        store = open_store(where)
        for name in (MANIFEST, STARTED):
            before = read_manifest(store, name)
            if before is not None and (differ := self._differences(before)):
                fix = "choose another directory, or delete this one"
                raise DataError(f"{store} already holds another cache", got=", ".join(differ), fix=fix)

    def estimate(self) -> Estimate:
        """Estimate size, time and error from the sample."""
        packed = sum(len(self._packing.pack(part)) for part in _sampled_blocks(self._sample.measured.stored))
        return self._sample.estimate(packed_bytes=packed, positions=self._rows.tokens)

    @out_of_memory_told("caching the teacher", REMEDY)
    def run(
        self,
        where: str | Path | Store,
        progress: OnProgress = lambda done, total: None,
        *,
        part: Part = WHOLE,
    ) -> int:
        """Write the cache, or those of its shards that are missing; once all are there, its index and its manifest.

        Parts may be written at the same time by processes on any machines. Whichever ends last finds all shards, and
        finishes the cache. Its bytes do not depend on how it was divided.

        Args:
            where: directory or fsspec URL; empty, or holding a cache of the same teacher, tokenizer, data and settings.
            progress: called with the number of positions done, and of all in this part.
            part: which shards to write.

        Returns:
            Number of shards that other parts have yet to write; 0: the cache is finished.

        Raises:
            DataError: it holds another cache; names what differs.
            StorageError: no space, or not writable. NumericError: logits that are not finite. ModelError: a source that
            does not answer every position once.
        """
        store = open_store(where)
        prepare_store(store)
        self._begin(store)
        own = [number for number in range(len(self._plan)) if part.has(number)]
        names, key = store.names(), self._started.key
        sound = {number for number in own if shard_name(number) in names and self._is_sound(store, number)}
        total, done = self._positions(own), self._positions(sound)
        self._refuse_too_little_space(store, total - done)
        progress(done, total)
        for number in own:
            if number not in sound:
                blocks = self._blocks(number, partial(lambda before, new: progress(before + new, total), done))
                store.write(shard_name(number), shard_bytes(list(blocks), key))
                done += self._positions([number])
        missing = len({shard_name(number) for number in range(len(self._plan))} - store.names())
        if not missing:
            self._finish(store)
        return missing

    def _ask_sample(self) -> Sample:
        sampled = self._rows.sample()
        self._source.begin(self._rows.batch(sampled))
        started = time.perf_counter()
        said = list(self._ask(sampled))
        seconds = time.perf_counter() - started
        return Sample(measured=join(said), seconds=seconds)

    def _ask(self, rows: NDArray[np.int64]) -> Iterator[MeasuredTopK]:
        """Top-k logits of these rows, in order, a chunk of positions at a time."""
        starts = range(0, len(rows), self._batch_size)
        batches = (self._rows.batch(rows[start : start + self._batch_size]) for start in starts)
        return self._source.answers(batches, k=self._settings.k, temperature=self._settings.temperature)

    def _identify(self) -> CacheIdentity:
        return CacheIdentity(
            teacher=self._source.fingerprint,
            card=self._source.card,
            config=hash_config(self._source.config),
            tokenizer=hash_tokenizer(self._tokenizer),
            data=self._rows.hash(),
            vocabulary=self._vocabulary,
            rows=len(self._rows),
            tokens=self._rows.tokens,
            settings=self._settings,
        )

    def _begin(self, store: Store) -> None:
        """In a new cache write what all parts agree on, with the teacher's config and tokenizer.

        Parts that begin at once write the same files.
        """
        self.refuse_other(store)
        if read_manifest(store, STARTED) is not None and is_sound(store, self._started.order):
            return
        settings = self._source.generation_config
        settings = None if settings is None else savable_settings(settings)
        try:
            with TemporaryDirectory() as folder:
                for one in (self._source.config, settings, self._tokenizer):
                    if one is not None and hasattr(one, "save_pretrained"):
                        one.save_pretrained(folder)
                for path in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
                    store.write(f"{TEACHER}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        except OSError as error:
            if isinstance(error, StorageError):
                raise
            raise StorageError(f"{store}/{TEACHER} cannot be written", got=error.strerror) from error
        write_tensors(store, ORDER, {"order": self._order})
        write_manifest(store, STARTED, self._started)

    def _finish(self, store: Store) -> None:
        """Write index and manifest, unless a finished cache is sound."""
        finished = read_manifest(store)
        if finished is None or not all(is_sound(store, file) for file in finished.index):
            index = write_index(store, self._started)
            write_manifest(store, MANIFEST, self._started.model_copy(update={"index": index}))
        store.tidy()

    def _start(self) -> Manifest:
        """What all parts agree on; follows from the teacher, the data and the settings alone."""
        size = max(SHARD_POSITIONS, -(-self._rows.tokens // MOST_SHARDS))
        size = max(1, min(size, SHARD_BYTES // self._packing.bytes_per_position))
        self._plan = self._rows.parts(size)
        content = save({"order": self._order})
        return Manifest(
            identity=self.identity,
            order=CacheFile(file=ORDER, size=len(content), sha256=hashlib.sha256(content).hexdigest()),
            shard_count=len(self._plan),
            shard_positions=size,
        )

    def _differences(self, before: Manifest) -> list[str]:
        differ = before.identity.differences(self.identity)
        return differ if differ or before.key == self._started.key else ["other shards, of another version"]

    def _positions(self, numbers: Iterable[int]) -> int:
        return sum(int(self._rows.counts[self._plan[number]].sum(dtype=np.int64)) for number in numbers)

    def _is_sound(self, store: Store, number: int) -> bool:
        return is_sound_shard(store.read(shard_name(number)) or b"", self._started.key)

    def _blocks(self, number: int, progress: Callable[[int], None]) -> Iterator[RowBlock]:
        """The blocks of a shard; its rows are sorted by length, so that batches have little padding."""
        part = self._plan[number]
        rows = np.arange(part.start, part.stop)
        rows = rows[np.argsort(self._rows.counts[part], kind="stable")]
        counts, keys = self._rows.counts[rows], self._rows.keys(rows)
        answers, waiting, done = self._ask(rows), empty(self._settings.k), 0
        for start, end in _bounds_of_blocks(counts):
            size, parts = int(counts[start:end].sum()), [waiting]
            while sum(map(len, parts)) < size:
                if (some := next(answers, None)) is None:
                    raise ModelError("the teacher answered too few positions", got=done, expected=f"{counts.sum()}")
                parts.append(some.stored)
                done += len(some.stored)
                progress(done)
            gathered = concatenate(parts)
            packed, waiting = self._packing.pack(gathered[:size]), gathered[size:]
            yield RowBlock(keys=keys[start:end], counts=counts[start:end], packed=packed)
        if len(waiting) or next(answers, None) is not None:
            raise ModelError("the teacher answered too many positions", got=f"over {done - len(waiting)}")

    def _refuse_too_little_space(self, store: Store, positions: int) -> None:
        need, free = round(self.estimate().bytes_per_token * positions), store.free_bytes()
        if free is not None and need > free:
            got, expected = f"{free:,} bytes", f"about {need:,} bytes"
            raise StorageError(f"too little free space for the cache in {store}", got=got, expected=expected)


def _by_frequency(counts: NDArray[np.int64], vocabulary: int) -> NDArray[np.int64]:
    """All ids of the vocabulary, those that are most often a label first: the same on every machine, as sums are."""
    known = np.zeros(vocabulary, np.int64)
    known[: len(counts)] = counts[:vocabulary]
    return np.argsort(-known, kind="stable")


def _sampled_blocks(stored: StoredTopK) -> Iterator[StoredTopK]:
    return (stored[start : start + BLOCK_POSITIONS] for start in range(0, len(stored), BLOCK_POSITIONS))


def _bounds_of_blocks(counts: NDArray[np.int32]) -> Iterator[tuple[int, int]]:
    """First row and end of each block: the fewest rows with BLOCK_POSITIONS positions, or all that are left."""
    start = total = 0
    for row, count in enumerate(counts.tolist(), start=1):
        total += count
        if total >= BLOCK_POSITIONS or row == len(counts):
            yield start, row
            start, total = row, 0
