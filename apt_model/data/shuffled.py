"""A stream in another order, shuffled within blocks of rows, that goes on anywhere.

Knows streams that have a `state_dict`; knows nothing of what a row is.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset

from apt_model.data.quiet import quiet_streams

BEGINNING: dict[str, Any] = {"block": 0, "given": 0, "rows": None}


class ShuffledStream(IterableDataset[Any]):
    """The rows of a stream, shuffled within blocks, each by a generator of its own.

    A shuffle buffer that is filled up while it is emptied can only go on with its rows, which nobody keeps. Of a block
    the place of its first row says all: where it goes on, that block is read again, and nothing before it.

    Args:
        rows: a `datasets.IterableDataset`.
        block: rows of a block, which are in memory.
        seed: of the order, with the number of the epoch and of the block.
    """

    def __init__(self, rows: Any, *, block: int, seed: int) -> None:
        self._rows, self._block, self._seed, self._epoch = rows, block, seed, 0
        self._state_dict, self._starting_state_dict = BEGINNING, BEGINNING

    def set_epoch(self, epoch: int) -> None:
        """Let the next iteration be in the order of an epoch, from 0."""
        self._epoch = epoch
        self._rows.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """The place of the next row: number of its block, rows given of that, state of the stream before the block."""
        return self._state_dict

    def load_state_dict(self, state: dict[str, Any] | None) -> None:
        """Let the next iteration begin at a state of `state_dict`; None: at the beginning."""
        self._starting_state_dict = state or BEGINNING

    @property
    def rows(self) -> Any:
        """The stream that is shuffled."""
        return self._rows

    def __iter__(self) -> Iterator[Any]:
        begins, self._starting_state_dict = self._starting_state_dict, BEGINNING
        number, given, before = begins["block"], begins["given"], begins["rows"]
        self._rows.load_state_dict(before)
        stream = iter(self._rows)
        with quiet_streams():  # it warns of the buffer of one row that we let it shuffle with
            block = list(islice(stream, self._block))
        self._rows.load_state_dict(None)
        while block:
            after = self._rows.state_dict()
            order = np.random.default_rng((self._seed, self._epoch, number)).permutation(len(block))
            for index in order[given:]:
                given += 1
                self._state_dict = {"block": number, "given": given, "rows": before}
                yield block[index]
            number, given, before = number + 1, 0, after
            block = list(islice(stream, self._block))
