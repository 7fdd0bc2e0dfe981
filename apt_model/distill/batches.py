"""Iterate over an epoch in gradient accumulation windows of collated, checked batches; resume in its middle by replay.

Knows how data is drawn and drawn again; knows nothing of what is learned from it.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from apt_model.data.batch import Batch
from apt_model.data.rng import drawn_apart, global_states
from apt_model.data.row_hashes import with_hashes
from apt_model.data.rows import is_read_by_index
from apt_model.data.shares import Share
from apt_model.distill.checkpoints.generators import RestoredGenerators
from apt_model.distill.checkpoints.manager import Checkpoints
from apt_model.distill.checkpoints.run_state import RunState
from apt_model.errors import ConfigError
from apt_model.ranks.collective import from_first, rank, world_size

Window = list[tuple[int, Batch]]  # gradient accumulation window: the numbered batches of one optimizer step


class AccumulationWindows:
    """The gradient accumulation windows of an epoch, drawn from the data.

    Args:
        share: this rank's share of the data, which yields anything that `to_batch` takes.
        collate: makes a `Batch` of what the data yields.
        check: refuses a batch, still on the CPU, that a model cannot read.
        accumulation: batches of one optimizer step.
        keeper: the run's checkpoints; refuses other data on resuming.
        state: the run as a checkpoint holds it.

    Attributes:
        before: of several ranks that resume, the batch that this one learned from last; None where it did not resume.
    """

    def __init__(
        self,
        share: Share,
        *,
        collate: Callable[[Any], Batch],
        check: Callable[[Batch], None],
        accumulation: int,
        keeper: Checkpoints | None,
        state: RunState,
    ) -> None:
        self._share, self._collate, self._check, self._accumulation = share, collate, check, accumulation
        self._keeper, self._state = keeper, state
        self.before: Batch | None = None

    def of_epoch(self, restored: RestoredGenerators | None) -> Iterator[Window]:
        """The accumulation windows of the current epoch, from the next one to be trained on.

        Args:
            restored: the random generators' states of the checkpoint that the run resumes from, if it does.

        Raises:
            DataError: a batch cannot be collated, or a model cannot read it.
            ConfigError: on resuming, the data differs from the interrupted run's.
        """
        loader = self._share.loader
        for holder in (loader, *(getattr(loader, name, None) for name in ("dataset", "sampler", "batch_sampler"))):
            set_epoch = getattr(holder, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(self._state.progress.epoch - 1)
        window: Window = []
        for index, batch in self._numbered(restored):
            self._check(batch)
            window.append((index, batch))
            if len(window) == self._accumulation:
                yield window
                window = []
        if window:
            yield window

    def _numbered(self, restored: RestoredGenerators | None) -> Iterator[tuple[int, Batch]]:
        """The epoch's batches with their numbers, from the first that was not trained on.

        Those before are drawn again, so that whatever draws random numbers for them (samplers, transforms, workers) is
        in the same state as in the run before it was interrupted: also at the data's end, if the checkpoint was written
        after it had been reached.
        """
        keeper, progress, state = self._keeper, self._state.progress, self._state
        done, drawn, was_exhausted = progress.own_batches, progress.drawn, progress.exhausted
        progress.drawn, index = "", -1
        if restored is not None and progress.batches:
            state.at_epoch_start = restored.set_to_epoch_start(state.device, state.data)
        elif keeper is not None:
            state.at_epoch_start = state.data.read(state.device)
        drawn_now = self._drawn()
        known = with_hashes(drawn_now) if keeper is not None else ((raw, "") for raw in drawn_now)
        for index, (raw, so_far) in enumerate(known):
            progress.drawn = so_far
            if index >= done:
                yield self._share.number(index), self._collate(raw)
            elif index == done - 1:
                self.before = self._collate(raw) if world_size() > 1 else None
                if keeper is not None:
                    keeper.refuse_other_data(drawn, progress.drawn, done)
                if restored is not None and not was_exhausted:
                    restored.set_to_save(state.device, state.data)
        if index + 1 < done:
            raise ConfigError(
                "the data has fewer batches than were trained on before the checkpoint",
                got=index + 1,
                expected=f"at least {done}",
                fix="resume with the same data",
            )
        if restored is not None and was_exhausted:  # a loader may draw numbers when it comes to its end
            restored.set_to_save(state.device, state.data)
        progress.exhausted = True

    def _drawn(self) -> Iterable[Any]:
        """This rank's batches, chosen by the generators of rank 0: every rank then has the same order of data."""
        batches, state = self._share.batches, self._state
        if world_size() == 1:
            return batches if is_read_by_index(batches) else drawn_apart(batches)
        if self._share.is_divided:
            return drawn_apart(batches)
        first, loader = from_first((global_states(), state.data.read_own()))
        state.data.set_own(*loader)
        return drawn_apart(batches, first=first if rank() else None)
