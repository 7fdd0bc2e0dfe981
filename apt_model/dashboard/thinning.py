"""Downsampling of a series to a bounded number of its members, extremes included. Knows nothing of their meaning."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Criterion = Callable[[Any], float]


@dataclass
class _ScoredLine:
    place: int
    line: bytes
    score: float


@dataclass
class _Bucket:
    best: list[_ScoredLine] = field(default_factory=list)
    count: int = 0


class Thinned:
    """Keeps the best member of each bucket of neighbours by each criterion, and the first and last of all.

    At `capacity` buckets, or more than `largest` bytes, neighbouring buckets are merged in pairs: memory is bounded,
    and the extremes of each stretch are kept.

    Args:
        capacity: an even number of buckets.
        criteria: scores, higher is better; a member that is best by several is kept once.
        largest: approximate limit on the bytes of all lines; one that is best by two criteria counts twice.
    """

    def __init__(self, capacity: int, criteria: tuple[Criterion, ...], *, largest: float = math.inf) -> None:
        self._capacity, self._criteria, self._largest = capacity, criteria, largest
        self._buckets: list[_Bucket] = []
        self._width, self._bytes = 1, 0
        self._first: tuple[int, bytes] | None = None
        self._last: tuple[int, bytes] = (0, b"")

    def add(self, place: int, member: object, line: bytes) -> None:
        """Add a member, which the criteria score; `place` gives its order."""
        if self._first is None:
            self._first = place, line
        self._last = place, line
        if not self._buckets or self._buckets[-1].count >= self._width:
            if len(self._buckets) >= self._capacity or (len(self._buckets) > 2 and self._bytes > self._largest):
                self._merge_pairs()
            self._buckets.append(_Bucket(best=[_ScoredLine(place, line, -math.inf) for _ in self._criteria]))
            self._bytes += len(line) * len(self._criteria)
        bucket = self._buckets[-1]
        bucket.count += 1
        for index, criterion in enumerate(self._criteria):
            score = criterion(member)
            if score >= bucket.best[index].score:
                self._bytes += len(line) - len(bucket.best[index].line)
                bucket.best[index] = _ScoredLine(place, line, score)

    def _merge_pairs(self) -> None:
        pairs = [self._buckets[at : at + 2] for at in range(0, len(self._buckets), 2)]
        self._buckets = [_merged(pair) for pair in pairs]
        self._width *= 2
        self._bytes = sum(len(kept.line) for bucket in self._buckets for kept in bucket.best)

    def kept(self) -> dict[int, bytes]:
        """The kept lines by place."""
        lines = {kept.place: kept.line for bucket in self._buckets for kept in bucket.best}
        if self._first is not None:
            lines |= dict([self._first, self._last])
        return lines


def _merged(pair: list[_Bucket]) -> _Bucket:
    rivals = zip(*(bucket.best for bucket in pair), strict=True)
    best = [max(reversed(pair_of), key=lambda kept: kept.score) for pair_of in rivals]
    return _Bucket(best=best, count=sum(bucket.count for bucket in pair))
