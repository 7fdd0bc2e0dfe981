"""The rows that a cache holds: every distinct one with a label, its key, and its number of positions with a label.

Of packed rows each text counts as a row of its own: the teacher reads it alone, whatever it stands beside.

Knows rows and batches; knows nothing of the cache's files, and of the teacher only that it checks a batch.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apt_model.data.batch import Batch, to_batch
from apt_model.data.encoded import IGNORED
from apt_model.distill.teachers.cache.sorting import AT_ONCE, KEY, BucketSort, Records, Spill, as_records
from apt_model.errors import DataError
from apt_model.models.fingerprints import text_keys

SAMPLE_ROWS, SAMPLE_POSITIONS = 32, 8_192
ROWS_AT_ONCE = 256
# a row of the data, or a text of a packed one: where it is, and its positions with a label
_ROW = [*KEY, ("row", np.int64), ("text", np.int32), ("count", np.int32)]


class DistinctRows:
    """The distinct rows of the data that have a label, numbered from 0 in the data's order.

    What is known of them lies in a temporary file of 32 bytes a row, mapped: memory does not grow with the data.

    Args:
        data: as in `CacheWriter`; every row is read once.
        tokenizer: for rows of text.
        max_length: of a row, in tokens.
        check: refuses a batch that the teacher cannot read.

    Attributes:
        counts: (N,) int32; positions with a label of each row.
        tokens: their sum.
        frequencies: how often each token id is a label, by id, in all rows of the data.

    Raises:
        DataError: no row has a label, or a row that `check` refuses.
    """

    def __init__(self, data: Any, *, tokenizer: Any, max_length: int, check: Callable[[Batch], None]) -> None:
        self._data, self._tokenizer, self._max_length = data, tokenizer, max_length
        self.frequencies = np.zeros(0, np.int64)
        seen = Spill(_ROW)
        for index, batch in self._all():
            check(batch)
            seen.append(self._records(index, batch))
        self._table = _distinct(seen)
        if not len(self._table):
            raise DataError("no row has a label to learn from", got=f"{len(data)} rows")
        self.counts: NDArray[np.int32] = self._table["count"]
        self.tokens = int(self.counts.sum(dtype=np.int64))

    def __len__(self) -> int:
        return len(self._table)

    def keys(self, rows: NDArray[np.int64] | slice) -> NDArray[np.uint64]:
        """The keys (R, 2) of some rows."""
        some = self._table[rows]
        return np.column_stack([some["high"], some["low"]])

    def hash(self) -> str:
        """sha256 over all keys, in order."""
        digest = hashlib.sha256()
        for start in range(0, len(self), AT_ONCE):
            digest.update(self.keys(slice(start, start + AT_ONCE)).tobytes())
        return digest.hexdigest()

    def parts(self, positions: int) -> list[slice]:
        """Divide the rows, in order, into parts of so many positions, give or take a row."""
        starts, before, latest = [], 0, -1
        for start in range(0, len(self), AT_ONCE):
            counts = self.counts[start : start + AT_ONCE].astype(np.int64)
            numbers = (before + np.cumsum(counts) - counts) // positions
            starts += (start + np.flatnonzero(np.diff(numbers, prepend=latest))).tolist()
            before, latest = before + int(counts.sum()), int(numbers[-1])
        return [slice(start, end) for start, end in zip(starts, [*starts[1:], len(self)], strict=True)]

    def _records(self, index: int, batch: Batch) -> Records:
        """The rows of a batch that have a label, as records of the table."""
        labels = batch.apart.labels[:, 1:]
        learned = labels != IGNORED
        counts, places = learned.sum(dim=1).numpy(), np.array(_places(batch)).reshape(-1, 2)
        known = np.bincount(labels[learned].numpy().astype(np.int64), minlength=len(self.frequencies))
        known[: len(self.frequencies)] += self.frequencies
        self.frequencies = known
        keys = np.frombuffer(b"".join(text_keys(batch)), dtype=np.uint64).reshape(-1, 2)
        fields = {"row": index + places[:, 0], "text": places[:, 1].astype(np.int32), "count": counts.astype(np.int32)}
        return as_records(keys, fields)[counts > 0]

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """These rows in a batch, each by itself."""
        table = self._table[rows]
        indices, of_row = np.unique(table["row"], return_inverse=True)
        batch = self._collate(indices.tolist())
        numbers = {place: number for number, place in enumerate(_places(batch))}
        wanted = zip(of_row.tolist(), table["text"].tolist(), strict=True)
        texts = batch.apart.part([numbers[place] for place in wanted])
        return texts.part(slice(None), slice(int(texts.attention_mask.sum(dim=1).max())))

    def sample(self) -> NDArray[np.int64]:
        """At most SAMPLE_ROWS rows, evenly spaced, of SAMPLE_POSITIONS positions together, but one row at least."""
        spread = np.linspace(0, len(self) - 1, min(SAMPLE_ROWS, len(self))).round().astype(int)
        within = np.cumsum(self.counts[spread], dtype=np.int64) <= SAMPLE_POSITIONS
        within[0] = True
        return spread[within]

    def _all(self) -> Iterator[tuple[int, Batch]]:
        """(index of its first row in the data, batch); one row a batch if collating dropped rows without a token."""
        for start in range(0, len(self._data), ROWS_AT_ONCE):
            indices = range(start, min(start + ROWS_AT_ONCE, len(self._data)))
            batch = self._collate(indices)
            if len(batch.input_ids) == len(indices):
                yield start, batch
            else:
                yield from ((index, self._collate([index])) for index in indices)

    def _collate(self, indices: Sequence[int]) -> Batch:
        rows = [self._data[index] for index in indices]
        return to_batch(rows, tokenizer=self._tokenizer, max_length=self._max_length)


def _distinct(seen: Spill) -> Records:
    """The first of all records with one key, in the order in which they came."""
    table, by_key, is_first = seen.mapped(), BucketSort([("at", np.int64)]), np.ones(seen.length, dtype=bool)
    for start in range(0, seen.length, AT_ONCE):
        some = table[start : start + AT_ONCE]
        keys = np.column_stack([some["high"], some["low"]])
        by_key.add(as_records(keys, {"at": np.arange(start, start + len(some))}))
    for bucket in by_key:
        again = (np.diff(bucket["high"]) == 0) & (np.diff(bucket["low"]) == 0)
        is_first[bucket["at"][1:][again]] = False
    if is_first.all():
        return table
    kept = Spill(_ROW)
    for start in range(0, seen.length, AT_ONCE):
        kept.append(table[start : start + AT_ONCE][is_first[start : start + AT_ONCE]])
    return kept.mapped()


def _places(batch: Batch) -> list[tuple[int, int]]:
    """The row of each text of a batch, and its number within that row."""
    last = [0] * len(batch.input_ids) if batch.segments is None else batch.segments.numbers[:, -1].tolist()
    return [(row, number) for row, most in enumerate(last) for number in range(most + 1)]
