"""Sort fixed-size records by a 128-bit key in bounded memory: they wait in a temporary file, in 256 buckets.

Knows records and files; knows nothing of what a key stands for. Keys are hashes, so that buckets are of one size.
"""

import tempfile
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apt_model.errors import StorageError

AT_ONCE = 2**18  # records in memory, before they go to the file
BUCKETS = 256
KEY = [("high", np.uint64), ("low", np.uint64)]  # of every record; the bucket is the top byte of `high`
Records = NDArray[Any]


class Spill:
    """Records in a temporary file: appended, then mapped.

    Args:
        dtype: of a record.
    """

    def __init__(self, dtype: Any) -> None:
        self._dtype, self.length = np.dtype(dtype), 0
        try:
            self._file = tempfile.TemporaryFile(prefix="apt-model-")  # noqa: SIM115 - closed when this is forgotten
        except OSError as error:
            raise StorageError("no temporary file can be made", got=error.strerror) from error
        weakref.finalize(self, self._file.close)

    def append(self, records: Records) -> None:
        """Append records.

        Raises:
            StorageError: no space for them in the directory of temporary files.
        """
        try:
            self._file.write(records.astype(self._dtype, copy=False).tobytes())
        except OSError as error:
            what, fix = f"{tempfile.gettempdir()} cannot be written", "free some space, or set TMPDIR"
            raise StorageError(what, got=error.strerror, fix=fix) from error
        self.length += len(records)

    def mapped(self) -> Records:
        """All records, read from the file on access, also when this object is forgotten and its file closed."""
        self._file.flush()
        if not self.length:
            return np.empty(0, self._dtype)
        return np.memmap(self._file, dtype=self._dtype, mode="r", shape=(self.length,))


class BucketSort:
    """Sorts records by key; those with equal keys stay in the order in which they were added.

    Args:
        fields: of a record, besides KEY.
    """

    def __init__(self, fields: list[tuple[str, Any]]) -> None:
        self._spill, self._waiting, self._count = Spill([*KEY, *fields]), list[Records](), 0
        self._bounds: list[NDArray[np.int64]] = []

    def add(self, records: Records) -> None:
        """Add records that have the fields KEY, and those given."""
        self._waiting.append(records)
        self._count += len(records)
        if self._count >= AT_ONCE:
            self._write()

    def __iter__(self) -> Iterator[Records]:
        """Each of the 256 buckets, sorted: together all records in the order of their keys."""
        if self._waiting:
            self._write()
        mapped = self._spill.mapped()
        for bucket in range(BUCKETS):
            parts = [mapped[bounds[bucket] : bounds[bucket + 1]] for bounds in self._bounds]
            records = np.concatenate(parts) if parts else mapped
            yield records[np.lexsort((records["low"], records["high"]))]

    def _write(self) -> None:
        records, start = np.concatenate(self._waiting), self._spill.length
        buckets = records["high"] >> np.uint64(56)
        self._bounds.append(start + np.append(0, np.cumsum(np.bincount(buckets.astype(np.int64), minlength=BUCKETS))))
        self._spill.append(records[np.argsort(buckets, kind="stable")])
        self._waiting, self._count = [], 0


def as_records(keys: NDArray[np.uint64], fields: dict[str, NDArray[Any]]) -> Records:
    """Records of keys (N, 2), high and low, and of further fields (N,)."""
    records = np.empty(len(keys), [*KEY, *((name, values.dtype) for name, values in fields.items())])
    records["high"], records["low"] = keys[:, 0], keys[:, 1]
    for name, values in fields.items():
        records[name] = values
    return records
