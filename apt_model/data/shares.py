"""Divide a data loader's batches among the ranks of a run: one order of data, whatever their number.

Knows how batches are read; knows nothing of how ranks talk to each other.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, Sampler

from apt_model.data.batch import steps_per_epoch


class Share:
    """One rank's share of a loader's batches: of W ranks, rank r has batches r, r + W, r + 2W … of one order.

    No batch is repeated to give every rank the same number. A loader with a `DistributedSampler` is divided already:
    each rank has all batches of its own loader.

    Args:
        loader: yields the batches; on every rank the same.
        rank: this process's number, from 0.
        ranks: their count, W.

    Attributes:
        loader: as it was given.
        batches: yields this rank's batches. Rows of others are not read, unless the data can only be read in order (a
            stream, a list of batches, a loader without a batch sampler).
    """

    def __init__(self, loader: Iterable[Any], rank: int, ranks: int) -> None:
        self.loader, self._rank, self._ranks = loader, rank, ranks
        self.batches: Iterable[Any]
        self.is_divided = isinstance(getattr(loader, "sampler", None), DistributedSampler)
        if ranks == 1 or self.is_divided:
            self.batches = loader
        elif isinstance(loader, DataLoader) and is_mapped(loader):
            self.batches = _reading(loader, _Every(loader.batch_sampler or (), rank, ranks))
        else:
            self.batches = _Every(loader, rank, ranks)

    def following(self) -> Iterable[Any]:
        """This rank's batches of a loader that goes on behind one of them."""
        return self.loader if self._ranks == 1 else _Every(self.loader, self._ranks - 1, self._ranks)

    def number(self, own: int) -> int:
        """Number of this rank's batch `own` among the batches of all ranks."""
        return own * self._ranks + self._rank

    def own(self, batches: int) -> int:
        """How many of the first `batches` batches of all ranks are this one's."""
        return max(0, -((self._rank - batches) // self._ranks))

    def steps_per_epoch(self, accumulation: int) -> int | None:
        """Optimizer steps in one epoch, with so many batches per rank and step; None if the data has no length."""
        together = accumulation if self.is_divided else accumulation * self._ranks
        return steps_per_epoch(self.loader, together)


def is_mapped(loader: DataLoader[Any]) -> bool:
    """Whether a loader reads rows by index, in batches that a batch sampler chooses."""
    return not isinstance(loader.dataset, IterableDataset) and loader.batch_sampler is not None


class _Every(Sampler[Any]):
    """Every W-th batch, from the r-th on."""

    def __init__(self, batches: Iterable[Any], rank: int, ranks: int) -> None:
        self._batches, self._rank, self._ranks = batches, rank, ranks

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self._batches), self._rank, None, self._ranks)


def _reading(loader: DataLoader[Any], batch_sampler: Sampler[list[int]]) -> DataLoader[Any]:
    """A loader of the same data with another batch sampler."""
    return DataLoader(
        loader.dataset,
        batch_sampler=batch_sampler,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=loader.persistent_workers,
        in_order=loader.in_order,
    )
