"""Content hashes of training data: of all its rows, as a set and in order, and of what a loader yields.

Knows what makes two rows equal; knows nothing of models or checkpoints. Nothing is read that could notice it: a data
set of somebody's own is hashed by what it holds.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, IterableDataset

from apt_model.data.rng import global_states
from apt_model.data.rows import is_stateless

BYTES = 16  # of a digest (BLAKE2b)
ROWS_AT_ONCE = 1_000
LARGE = 2**30  # bytes of a mapped file, of which parts are hashed beyond that: PARTS of them, each of PART bytes
PARTS, PART = 256, 2**20
DEPTH = 6  # of data sets within data sets


@dataclass(frozen=True, kw_only=True)
class RowHashes:
    """Hashes of all rows of a data set.

    Attributes:
        rows: how many there are.
        as_set: the same in any order; equal rows count as often as they occur.
        in_order: of the rows in the order of their indices.
    """

    rows: int
    as_set: str
    in_order: str


def hash_rows(batches: Iterable[Any]) -> RowHashes | None:
    """Hashes of the data set of a loader, or of a list of batches; None for a stream, which can be read only once.

    Rows in tensors, lists or a `datasets.Dataset` are read, without its transform; of another data set the tensors,
    arrays, lists and data sets that are its attributes count instead.
    """
    rows: Any = batches if isinstance(batches, Dataset) else getattr(batches, "dataset", batches)
    if isinstance(rows, Iterator | IterableDataset | datasets.IterableDataset) or not _has_rows(rows):
        return None
    total, chain = 0, blake2b(digest_size=BYTES)
    for one in _digests(rows):
        total += int.from_bytes(one, "little")
        chain.update(one)
    as_set = (total % 2 ** (8 * BYTES)).to_bytes(BYTES, "little").hex()
    return RowHashes(rows=len(rows), as_set=as_set, in_order=chain.hexdigest())


def with_hashes(batches: Iterable[Any]) -> Iterator[tuple[Any, str]]:
    """Each batch of an epoch, with a hash of the sequence so far: the same when the epoch is drawn again on resuming.

    Batches for which the global generators were drawn from, as by a random transform, do not count, but for the first:
    drawn again without the training between them, they are others.
    """
    so_far, iterator, end = b"", iter(batches), object()
    while True:
        before = global_states() if so_far else None
        value = next(iterator, end)
        if value is end:
            return
        if before is None or before == global_states():
            so_far = blake2b(so_far + digest(value), digest_size=BYTES).digest()
        yield value, so_far.hex()


def digest(value: Any) -> bytes:
    """BLAKE2b of a row or batch: of the values in tensors, arrays, lists, mappings and plain objects.

    What none of these holds counts by the name of its type.
    """
    try:
        text = json.dumps(value, sort_keys=True, default=_plain)
    except (TypeError, ValueError, RecursionError, RuntimeError):  # keys without an order, a circle, a sparse tensor
        text = type(value).__name__
    return blake2b(text.encode(), digest_size=BYTES).digest()


def _plain(value: Any) -> Any:
    """What `json` cannot write, in values that it can."""
    if isinstance(value, Tensor):
        whole = value.detach().cpu().contiguous()
        return [str(value.dtype), list(value.shape), _hex(whole.reshape(-1).view(torch.uint8).numpy().data)]
    if isinstance(value, np.memmap) and value.nbytes > LARGE:
        return [str(value.dtype), list(value.shape), _sampled(value)]
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return [str(value.dtype), list(value.shape), _hex(np.ascontiguousarray(value).data)]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, bytes | bytearray | memoryview):
        return _hex(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, range):
        return repr(value)
    if isinstance(value, set | frozenset):
        return sorted(digest(one).hex() for one in value)
    return [type(value).__name__, getattr(value, "__dict__", None)]


def _sampled(value: Any) -> str:
    """The hash of parts spread over a file that is too large to be read whole for it."""
    flat = value.reshape(-1)
    some = max(1, PART // value.itemsize)
    starts = np.linspace(0, len(flat) - some, PARTS).astype(np.int64)
    return _hex(b"".join(flat[start : start + some].tobytes() for start in starts.tolist()))


def _hex(data: Any) -> str:
    return blake2b(data, digest_size=BYTES).hexdigest()


def _has_rows(value: Any) -> bool:
    return hasattr(value, "__getitem__") and hasattr(value, "__len__") and not isinstance(value, str | bytes | Mapping)


def _digests(rows: Any, depth: int = DEPTH) -> Iterator[bytes]:
    """Of each row of a data set that can be read without a trace, else of what it holds."""
    if isinstance(rows, ConcatDataset):
        for part in rows.datasets:
            yield from _digests(part, depth - 1)
    elif isinstance(rows, datasets.Dataset):
        for table in rows.with_format("arrow").iter(batch_size=ROWS_AT_ONCE):
            columns = [_of_column(name, table.column(name)) for name in sorted(table.column_names)]
            yield from (blake2b(b"".join(cells), digest_size=BYTES).digest() for cells in zip(*columns, strict=True))
    elif is_stateless(rows):
        yield from (digest(rows[index]) for index in range(len(rows)))
    else:
        for name, value in sorted(getattr(rows, "__dict__", {}).items()):
            if isinstance(value, Tensor | np.ndarray | range):
                yield digest([name, value])
            elif depth and _has_rows(value):
                yield from _digests(value, depth - 1)


def _of_column(name: str, column: pa.ChunkedArray) -> Iterable[bytes]:
    """A digest of each cell of a column, its name among it; lists of integers, such as token ids, without Python's."""
    whole = column.combine_chunks()
    kind = whole.type
    is_tokens = (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and pa.types.is_integer(kind.value_type)
    if not is_tokens or whole.null_count or whole.values.null_count:
        return [digest([name, cell]) for cell in whole.to_pylist()]
    ends, values = whole.offsets.to_numpy(), whole.values.to_numpy().astype(np.int64, copy=False)
    person = name.encode()[:BYTES]
    return [blake2b(values[begin:end].data, digest_size=BYTES, person=person).digest() for begin, end in pairwise(ends)]
