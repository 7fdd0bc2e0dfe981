"""What the ranks of a run do together in a step: count its window, fill up the parts of those without data, vote.

Knows windows and counts; knows nothing of losses.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from apt_model.data.batch import Batch
from apt_model.data.encoded import IGNORED
from apt_model.distill.batches import Window
from apt_model.errors import DataError
from apt_model.ranks.collective import gather_rows


@dataclass(frozen=True, kw_only=True)
class WindowCount:
    """A window's batches over all ranks.

    Attributes:
        tokens: labels.
        batches: taken from the data.
        most: batches of the rank that has most.
        without_labels: batches without a label.
        first_without_labels: number of the first of them; None without any.
        is_written: whether any is student-generated text.
    """

    tokens: int
    batches: int
    most: int
    without_labels: int
    first_without_labels: int | None
    is_written: bool


class Vote(NamedTuple):
    """What one rank sees and all go by: a checkpoint is due, the record is lost, the number of a signal or 0."""

    is_due: int
    is_lost: int
    signal: int


class Together:
    """Counts a run's windows over its ranks, fills up those of ranks with fewer batches, and counts votes.

    Args:
        device: of the ranks' exchange.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._filler: Batch | None = None

    def count(self, window: Window) -> WindowCount:
        """Count a window over all ranks; an empty one is that of a rank whose data is at its end."""
        labels = [batch.label_count for _, batch in window]
        unlabelled = [number for (number, _), count in zip(window, labels, strict=True) if not count]
        own = [sum(labels), len(window), len(unlabelled), min(unlabelled, default=-1)]
        own.append(any(batch.is_written for _, batch in window))
        tokens, batches, empty, first, written = zip(*gather_rows(own, self._device), strict=True)
        return WindowCount(
            tokens=sum(tokens),
            batches=sum(batches),
            most=max(batches),
            without_labels=sum(empty),
            first_without_labels=min((number for number in first if number >= 0), default=None),
            is_written=any(written),
        )

    def vote(self, *, is_due: bool, is_lost: bool, signal: int | None) -> Vote:
        """What any rank sees: of two signals the one with the higher number."""
        seen = gather_rows([is_due, is_lost, signal or 0], self._device)
        return Vote(*map(max, zip(*seen, strict=True)))

    def filled(self, window: Window, count: WindowCount, before: Batch | None) -> Window:
        """The window, with batches that nothing is learned from where other ranks have more.

        Each rank then calls its student as often as the others, and no row is learned twice.

        Args:
            window: this rank's.
            count: over all ranks.
            before: a batch of this rank from before it was resumed.

        Raises:
            DataError: this rank has never had a batch.
        """
        last = window[0][1] if window else before
        if window or self._filler is None:
            self._filler = last and _unlabelled(last)
        missing = count.most - len(window)
        if missing and self._filler is None:
            expected = "as many batches as ranks, at least"
            fix = "use fewer ranks, or smaller batches"
            raise DataError("the data has fewer batches than there are ranks", expected=expected, fix=fix)
        return [*window, *((-1, self._filler) for _ in range(missing) if self._filler is not None)]


def _unlabelled(batch: Batch) -> Batch:
    """The batch's texts with nothing to learn from."""
    return replace(batch, labels=torch.full_like(batch.labels, IGNORED))
