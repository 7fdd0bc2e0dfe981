"""The rows that a cache holds: every distinct one with a label, its key, and its number of positions with a label.

Of packed rows each text counts as a row of its own: the teacher reads it alone, whatever it stands beside.

Knows rows and batches; knows nothing of the cache's files, and of the teacher only that it checks a batch.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apt_model.data.batch import Batch, to_batch
from apt_model.data.encoded import IGNORED
from apt_model.errors import DataError
from apt_model.models.fingerprints import text_keys

SAMPLE_ROWS, SAMPLE_POSITIONS = 32, 8_192
ROWS_AT_ONCE = 256


class DistinctRows:
    """The distinct rows of the data that have a label, numbered from 0 in the data's order.

    Args:
        data: as in `CacheWriter`; every row is read once.
        tokenizer: for rows of text.
        max_length: of a row, in tokens.
        check: refuses a batch that the teacher cannot read.

    Attributes:
        keys: of each row.
        counts: positions with a label of each row.

    Raises:
        DataError: no row has a label, or a row that `check` refuses.
    """

    def __init__(self, data: Any, *, tokenizer: Any, max_length: int, check: Callable[[Batch], None]) -> None:
        self._data, self._tokenizer, self._max_length = data, tokenizer, max_length
        seen: dict[bytes, tuple[int, int, int]] = {}
        for index, batch in self._all():
            check(batch)
            counts = (batch.apart.labels[:, 1:] != IGNORED).sum(dim=1).tolist()
            for key, place, positions in zip(text_keys(batch), _places(batch), counts, strict=True):
                if positions:
                    seen.setdefault(key, (index + place[0], place[1], positions))
        if not seen:
            raise DataError("no row has a label to learn from", got=f"{len(data)} rows")
        places = np.array(list(seen.values()), dtype=np.int64)
        self.keys: list[bytes] = list(seen)
        self._places, self.counts = places[:, :2], places[:, 2]

    def __len__(self) -> int:
        return len(self.keys)

    def batch(self, rows: NDArray[np.int64]) -> Batch:
        """These rows in a batch, each by itself."""
        indices, of_row = np.unique(self._places[rows, 0], return_inverse=True)
        batch = self._collate(indices.tolist())
        numbers = {place: number for number, place in enumerate(_places(batch))}
        wanted = zip(of_row.tolist(), self._places[rows, 1].tolist(), strict=True)
        texts = batch.apart.part([numbers[place] for place in wanted])
        return texts.part(slice(None), slice(int(texts.attention_mask.sum(dim=1).max())))

    def sample(self) -> NDArray[np.int64]:
        """At most SAMPLE_ROWS rows, evenly spaced, of SAMPLE_POSITIONS positions together, but one row at least."""
        spread = np.linspace(0, len(self) - 1, min(SAMPLE_ROWS, len(self))).round().astype(int)
        within = np.cumsum(self.counts[spread]) <= SAMPLE_POSITIONS
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


def _places(batch: Batch) -> list[tuple[int, int]]:
    """The row of each text of a batch, and its number within that row."""
    last = [0] * len(batch.input_ids) if batch.segments is None else batch.segments.numbers[:, -1].tolist()
    return [(row, number) for row, most in enumerate(last) for number in range(most + 1)]
