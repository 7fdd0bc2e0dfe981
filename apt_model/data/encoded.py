"""A row in tokens, and the columns that such rows have in a data set.

Knows lists of numbers; knows nothing of texts, tokenizers or batches.
"""

from collections.abc import Sequence
from typing import NamedTuple

IGNORED = -100  # the label of a token that is not learned: `ignore_index` of torch's cross-entropy


class Encoded(NamedTuple):
    """A row in tokens: ids, as many labels, and as many positions if they are not 0, 1, 2 …"""

    ids: list[int]
    labels: list[int]
    positions: list[int] | None = None

    def until(self, length: int) -> "Encoded":
        """The first `length` tokens."""
        return Encoded(self.ids[:length], self.labels[:length], self.positions and self.positions[:length])


def as_columns(rows: Sequence[Encoded], *, with_positions: bool) -> dict[str, list[list[int]]]:
    """The rows as columns of a data set: `input_ids`, `labels` and, if asked for, `position_ids`."""
    columns = {"input_ids": [row.ids for row in rows], "labels": [row.labels for row in rows]}
    if with_positions:
        columns["position_ids"] = [row.positions or list(range(len(row.ids))) for row in rows]
    return columns
