"""Run a teacher once over the data and cache its top-k logits, so that students can be trained without it.

Knows the teacher, the rows and the cache's files; knows nothing of students, losses or screens. An interrupted run goes
on where it stopped, and leaves the same bytes as one that was not interrupted.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from torch import nn

from apt_model.config.sections import WideMatmul
from apt_model.distill.teachers.cache.answers import LiveTopK, TopKSource
from apt_model.distill.teachers.cache.codec import Packing, StoredTopK, concatenate
from apt_model.distill.teachers.cache.estimate import Estimate, Sample
from apt_model.distill.teachers.cache.manifest import (
    ORDER,
    TEACHER,
    CacheIdentity,
    CacheSettings,
    Manifest,
    check_settings,
    is_sound,
    prepare_directory,
    read_manifest,
    write_manifest,
    write_shard,
)
from apt_model.distill.teachers.cache.reader import hash_keys, shard_tensors
from apt_model.distill.teachers.cache.rows import DistinctRows
from apt_model.distill.teachers.cache.topk import MeasuredTopK, join
from apt_model.errors import DataError, StorageError
from apt_model.models.fingerprints import hash_config, hash_tokenizer
from apt_model.models.generation_settings import savable_settings

BLOCK_POSITIONS = 512  # packed together: fewer, and tables cost more; more, and a lookup unpacks what it does not need
SHARD_POSITIONS = 2**14  # at least, until there are 512 shards; lost at most when a run is cut off
MOST_SHARDS = 512

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
    """

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

    @property
    def uses_onednn(self) -> bool:
        """Whether float32 products of the sample went through oneDNN."""
        return isinstance(self._source, LiveTopK) and self._source.uses_onednn

    def refuse_other(self, directory: str | Path) -> None:
        """Refuse a directory with a cache of another teacher, tokenizer, data or settings.

        Raises:
            DataError: names what differs.
        """
        manifest = read_manifest(Path(directory))
        if manifest is not None and (differ := manifest.identity.differences(self.identity)):
            raise DataError(
                f"{directory} already holds another cache",
                got=", ".join(differ),
                fix="choose another directory, or delete this one",
            )

    def estimate(self) -> Estimate:
        """Estimate size, time and error from the sample."""
        packing = self._packing(self._sample.by_frequency())
        packed = sum(len(packing.pack(part)) for part in _blocks(self._sample.measured.stored))
        return self._sample.estimate(packed_bytes=packed, positions=int(self._rows.counts.sum()))

    def run(self, directory: str | Path, progress: OnProgress = lambda done, total: None) -> Manifest:
        """Write the cache, or the shards that are missing.

        Args:
            directory: empty, or holding a cache of the same teacher, tokenizer, data and settings.
            progress: called with the number of positions done, and of all.

        Raises:
            DataError: the directory holds another cache; names what differs.
            StorageError: no space, or not writable. NumericError: logits that are not finite.
        """
        directory = prepare_directory(directory)
        manifest = self._begin(directory)
        plan = self._plan()
        sound = {shard.file: shard for shard in manifest.shards if is_sound(directory, shard)}
        total, done = int(self._rows.counts.sum()), sum(self._positions(plan[_number(name)]) for name in sound)
        self._refuse_too_little_space(directory, total - done)
        packing = self._packing(load_file(directory / ORDER)["order"])
        progress(done, total)
        for number, part in enumerate(plan):
            name = f"shard-{number:05}.safetensors"
            if name not in sound:
                tensors = self._shard(part, packing, partial(lambda before, new: progress(before + new, total), done))
                sound[name] = write_shard(directory, name, tensors)
                done += self._positions(part)
                manifest = manifest.model_copy(update={"shards": tuple(sound[key] for key in sorted(sound))})
                write_manifest(directory, manifest)
        return manifest

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
            data=hash_keys(self._rows.keys),
            vocabulary=self._vocabulary,
            rows=len(self._rows),
            tokens=int(self._rows.counts.sum()),
            settings=self._settings,
        )

    def _begin(self, directory: Path) -> Manifest:
        """The manifest of the cache so far; in a new directory a new one, with the teacher's config and tokenizer."""
        self.refuse_other(directory)
        manifest = read_manifest(directory)
        if manifest is not None and is_sound(directory, manifest.order):
            return manifest
        try:
            settings = self._source.generation_config
            settings = None if settings is None else savable_settings(settings)
            for part in (self._source.config, settings, self._tokenizer):
                if part is not None and hasattr(part, "save_pretrained"):
                    part.save_pretrained(directory / TEACHER)
        except OSError as error:
            raise StorageError(f"{directory / TEACHER} cannot be written", got=error.strerror) from error
        order = write_shard(directory, ORDER, {"order": self._sample.by_frequency()})
        if manifest is not None and manifest.order == order:
            return manifest
        manifest = Manifest(identity=self.identity, order=order, shard_count=len(self._plan()))
        write_manifest(directory, manifest)
        return manifest

    def _packing(self, order: NDArray[np.int64]) -> Packing:
        return Packing(order=order, k=self._settings.k, value_type=self._settings.value_type)

    def _plan(self) -> list[slice]:
        """Which rows go into which shard; follows from the data alone."""
        ends = np.cumsum(self._rows.counts)
        size = max(SHARD_POSITIONS, -(-int(ends[-1]) // MOST_SHARDS))
        shards = (ends - self._rows.counts) // size
        starts = np.flatnonzero(np.diff(shards, prepend=-1)).tolist()
        return [slice(start, end) for start, end in zip(starts, [*starts[1:], len(ends)], strict=True)]

    def _positions(self, part: slice) -> int:
        return int(self._rows.counts[part].sum())

    def _shard(self, part: slice, packing: Packing, progress: Callable[[int], None]) -> dict[str, NDArray[Any]]:
        """The tensors of a shard: top-k logits of its rows, sorted by length so that batches have little padding."""
        order = np.arange(len(self._rows))[part]
        order = order[np.argsort(self._rows.counts[order], kind="stable")]
        rows = [(self._rows.keys[row], int(self._rows.counts[row])) for row in order]
        blocks: list[tuple[int, bytes]] = []
        waiting: list[StoredTopK] = []
        at = done = 0
        for said in self._ask(order):
            waiting.append(said.stored)
            done += len(said.stored)
            while at < len(rows):
                here = _rows_of_a_block([count for _, count in rows[at:]])
                size = sum(count for _, count in rows[at : at + here])
                if sum(map(len, waiting)) < size:
                    break
                gathered = concatenate(waiting)
                blocks.append((here, packing.pack(gathered[:size])))
                waiting = [gathered[size:]]
                at += here
            progress(done)
        return shard_tensors(rows, blocks)

    def _refuse_too_little_space(self, directory: Path, positions: int) -> None:
        need = round(self.estimate().bytes_per_token * positions)
        free = shutil.disk_usage(directory).free
        if need > free:
            got, expected = f"{free:,} bytes", f"about {need:,} bytes"
            raise StorageError(f"too little free space for the cache in {directory}", got=got, expected=expected)


def _blocks(stored: StoredTopK) -> Iterator[StoredTopK]:
    return (stored[start : start + BLOCK_POSITIONS] for start in range(0, len(stored), BLOCK_POSITIONS))


def _rows_of_a_block(counts: Sequence[int]) -> int:
    """Number of rows in the next block: the fewest with BLOCK_POSITIONS positions, or all that are left."""
    total = 0
    for number, count in enumerate(counts, start=1):
        total += count
        if total >= BLOCK_POSITIONS:
            return number
    return len(counts)


def _number(name: str) -> int:
    return int(name.removeprefix("shard-").partition(".")[0])
