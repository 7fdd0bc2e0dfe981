"""A series of any length downsampled to a fixed number of means. Knows nothing of what the numbers mean."""

import math
from collections.abc import Mapping
from typing import Any


class BoundedSeries:
    """A series of numbers as at most `capacity` means of equally many neighbours, in order.

    When it is full, neighbours are merged in pairs: memory is bounded, and the curve keeps its shape. NaN and infinity
    are left out.
    """

    def __init__(self, capacity: int = 256) -> None:
        self._capacity = capacity
        self._per_bucket = 1
        self._sums: list[float] = []
        self._counts: list[int] = []
        self.count = 0
        self._total = 0.0

    def add(self, value: float) -> None:
        """Append one number."""
        if not math.isfinite(value):
            return
        if not self._counts or self._counts[-1] >= self._per_bucket:
            if len(self._counts) == self._capacity:
                self._merge_pairs()
            self._sums.append(0.0)
            self._counts.append(0)
        self._sums[-1] += value
        self._counts[-1] += 1
        self.count += 1
        self._total += value

    def _merge_pairs(self) -> None:
        self._sums = [sum(self._sums[i : i + 2]) for i in range(0, self._capacity, 2)]
        self._counts = [sum(self._counts[i : i + 2]) for i in range(0, self._capacity, 2)]
        self._per_bucket *= 2

    @property
    def mean(self) -> float | None:
        """Mean of all numbers; None if there are none."""
        return self._total / self.count if self.count else None

    def ends(self, share: float) -> tuple[float, float] | None:
        """Means of the first and the last `share` of the series (at least one bucket each); None if it is empty."""
        if not self._counts:
            return None
        width = max(1, int(len(self._counts) * share))
        head = sum(self._sums[:width]) / sum(self._counts[:width])
        tail = sum(self._sums[-width:]) / sum(self._counts[-width:])
        return head, tail

    def state_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state of `state_dict`.

        Raises:
            KeyError, ValueError: a part is missing, or of another type.
        """
        kept = {name: state[name] for name in vars(self)}
        wrong = [name for name, now in vars(self).items() if isinstance(now, list) is not isinstance(kept[name], list)]
        if wrong:
            raise ValueError(f"series: {', '.join(wrong)} of another type")
        vars(self).update(kept)
