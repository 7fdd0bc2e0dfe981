"""Content hashes of training data: of all its rows, as a set and in order, and of what a loader yields.

Knows what makes two rows equal; knows nothing of models or checkpoints. Nothing is read that could notice it: a data
set of somebody's own is hashed by what it holds.
"""

import json
import os
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn
from torch.utils.data import ConcatDataset, Dataset, IterableDataset

from apt_model.data.holdings import closure_of
from apt_model.data.intact import hashes_of
from apt_model.data.rows import is_stateless

BYTES = 16  # of a digest (BLAKE2b)
ROWS_AT_ONCE = 1_000
LONGEST_PATH = 1_000
HELD = (Tensor, np.ndarray, range, str, bytes, Mapping, deque, array)
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


def with_hashes(batches: Iterable[Any], before: str = "") -> Iterator[tuple[Any, str]]:
    """Each batch of an epoch, with a hash of the sequence so far: the same when the epoch is drawn again.

    `before`: that of the batches before.
    """
    so_far = bytes.fromhex(before)
    for value in batches:
        so_far = blake2b(so_far + digest(value), digest_size=BYTES).digest()
        yield value, so_far.hex()


def hash_reader(loader: Any) -> str:
    """Hash of how a DataLoader chooses rows and makes batches of them: samplers, collator, a table's transform.

    Classes, tensors, lists, strings and truth values that samplers hold; of torch's own the numbers too. Of functions
    their code, and what they are bound to.
    """
    samplers = (loader.sampler, loader.batch_sampler, getattr(loader.batch_sampler, "sampler", None))
    transform = loader.dataset.format["format_kwargs"] if isinstance(loader.dataset, datasets.Dataset) else None
    functions = {"collate": loader.collate_fn, **(transform or {})}
    return digest([*map(_sampler, samplers), {name: _function(one) for name, one in functions.items()}]).hex()


def _sampler(sampler: Any) -> Any:
    if isinstance(sampler, list | tuple | range | None):
        return sampler
    is_torchs = type(sampler).__module__.startswith("torch.")
    kinds = (Tensor, np.ndarray, list, tuple, str, bool, *((int, float) if is_torchs else ()))
    held = {
        key: one for key, one in vars(sampler).items() if isinstance(one, kinds) and key not in ("epoch", "data_source")
    }
    return [type(sampler).__qualname__, held]


def _function(value: Any, depth: int = DEPTH) -> Any:
    """A function by its name, code and closure; a partial by what it binds; another object by its type."""
    if depth and isinstance(value, partial):
        return [_function(one, depth - 1) for one in (value.func, *value.args, *value.keywords.values())]
    if depth and isinstance(value, FunctionType):  # it may hold itself
        held = {name: _function(one, depth - 1) for name, one in closure_of(value).items()}
        return [value.__qualname__, value.__code__.co_code, value.__code__.co_names, held]
    return value if isinstance(value, str | int | float | list | tuple | Tensor | None) else type(value).__qualname__


def digest(value: Any) -> bytes:
    """BLAKE2b of a row or batch: of the values in tensors, arrays, lists, mappings and plain objects.

    What none of these holds counts by the name of its type.
    """
    try:
        text = json.dumps(value, sort_keys=True, default=_plain)
    except (TypeError, ValueError):  # keys without an order, or that are no strings
        text = json.dumps(_spelled(value, DEPTH), default=_plain)
    return blake2b(text.encode(), digest_size=BYTES).digest()


def _spelled(value: Any, depth: int) -> Any:
    """A value with its mappings as sorted lists of pairs, as deep as DEPTH."""
    if depth and isinstance(value, Mapping):
        pairs = ([_spelled(key, depth - 1), _spelled(one, depth - 1)] for key, one in value.items())
        return sorted(pairs, key=lambda pair: json.dumps(pair, default=_plain))
    if depth and isinstance(value, list | tuple):
        return [_spelled(one, depth - 1) for one in value]
    return value if isinstance(value, str | int | float | None) else _spelled(_plain(value), depth - 1) if depth else ""


def _plain(value: Any) -> Any:
    """What `json` cannot write, in values that it can."""
    if isinstance(value, Tensor) and (value.layout != torch.strided or value.is_quantized):
        return str(value)
    if isinstance(value, Tensor):
        whole = value.detach().cpu().contiguous()
        return [str(value.dtype), list(value.shape), _hex(whole.reshape(-1).view(torch.uint8).numpy().data)]
    if isinstance(value, np.memmap) and value.nbytes > LARGE:
        return [str(value.dtype), list(value.shape), _sampled(value)]
    if isinstance(value, np.ndarray) and value.dtype.kind in "mM":
        return value.astype(str).tolist()
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return [str(value.dtype), list(value.shape), _hex(np.ascontiguousarray(value).data)]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if _is_of_pandas(value) and hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, deque):
        return list(value)
    if isinstance(value, np.datetime64 | np.timedelta64 | datetime | date):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview | array):
        return _hex(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, range):
        return repr(value)
    if isinstance(value, set | frozenset):
        return sorted(digest(one).hex() for one in value)
    held = {name: getattr(value, name) for name in getattr(type(value), "__slots__", ()) if hasattr(value, name)}
    return [type(value).__name__, held | getattr(value, "__dict__", {})]


def _sampled(value: Any) -> str:
    """The hash of parts spread over a file that is too large to be read whole for it."""
    flat = value.reshape(-1)
    some = max(1, PART // value.itemsize)
    starts = np.linspace(0, len(flat) - some, PARTS).astype(np.int64)
    return _hex(b"".join(flat[start : start + some].tobytes() for start in starts.tolist()))


def _is_of_pandas(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "pandas"


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
        for index in range(len(rows)):
            row = rows[index]
            yield digest(_of_file(row) if isinstance(row, str) else row)
    else:
        for name, value in sorted(getattr(rows, "__dict__", {}).items()):
            if "cache" in name:  # filled while rows are read
                continue
            if isinstance(value, HELD) or _is_of_pandas(value):
                yield digest([name, _of_file(value) if isinstance(value, str) else value])
            elif depth and _may_hold_rows(value):
                yield from _digests(value, depth - 1)


def _may_hold_rows(value: Any) -> bool:
    is_tool = callable(value) or isinstance(value, type | ModuleType | nn.Module)
    return _has_rows(value) or (hasattr(value, "__dict__") and not is_tool)


def _of_file(name: str) -> Any:
    """A string; of one that names a file its content, of one that names another place nothing: that may have moved."""
    if "\n" in name or os.sep not in name or len(name) > LONGEST_PATH:
        return name
    with suppress(OSError, ValueError):
        if Path(name).is_file():
            return [Path(name).stat().st_size, *hashes_of([Path(name)])]
    return "a place"


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
