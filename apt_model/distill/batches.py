"""Iterate over an epoch in gradient accumulation windows of collated, checked batches; resume in its middle.

Knows how data is drawn and drawn again; knows nothing of what is learned from it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

from apt_model.data.batch import Batch
from apt_model.data.rng import GlobalStates, drawn_apart, global_states
from apt_model.data.row_hashes import with_hashes
from apt_model.data.rows import is_read_by_index
from apt_model.data.shares import Share
from apt_model.data.streams import FAULTS
from apt_model.distill.checkpoints.generators import RestoredGenerators
from apt_model.distill.checkpoints.manager import Checkpoints
from apt_model.distill.checkpoints.run_state import RunState
from apt_model.errors import ConfigError, DataError
from apt_model.ranks.collective import from_first, gather_values, rank, world_size

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
        say: tells, by the key of a notice, why a stream that keeps its own place is read again all the same.

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
        say: Callable[..., None],
    ) -> None:
        self._share, self._collate, self._check, self._accumulation = share, collate, check, accumulation
        self._keeper, self._state, self._say = keeper, state, say
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
        after it had been reached. Of a stream that keeps its own place, only the last of them is.
        """
        progress, state = self._state.progress, self._state
        done, drawn, was_exhausted = progress.own_batches, progress.drawn, progress.exhausted
        index = -1
        for index, raw, so_far in self._known(restored, done, drawn):
            progress.drawn = so_far
            state.stream.keep()
            if index >= done:
                yield self._share.number(index), self._collate(raw)
            elif index == done - 1:
                self.before = self._collate(raw) if world_size() > 1 else None
                if self._keeper is not None:
                    self._keeper.refuse_other_data(drawn, progress.drawn, done)
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

    def _known(self, restored: RestoredGenerators | None, done: int, drawn: str) -> Iterator[tuple[int, Any, str]]:
        """This rank's batches with their numbers and a hash of all so far: from the first one, or from the last of
        `done` that were trained on, whose hash is `drawn`."""
        state = self._state
        state.progress.drawn = ""
        state.stream.begin()
        if restored is not None and state.progress.batches:
            state.at_epoch_start = restored.set_to_epoch_start(state.device, state.data)
            if (rest := self._going_on(restored, drawn)) is not None:
                yield from ((index, *one) for index, one in enumerate(rest, start=done - 1))
                return
        elif self._keeper is not None:
            state.at_epoch_start = state.data.read(state.device)
        batches = self._drawn()
        known = with_hashes(batches) if self._keeper is not None else ((raw, "") for raw in batches)
        yield from ((index, *one) for index, one in enumerate(known))

    def _going_on(self, restored: RestoredGenerators, drawn: str) -> Iterator[tuple[Any, str]] | None:
        """The batches from the last that was trained on, by the stream's own place, if on all ranks that is the same
        batch as before; else None: the epoch is to be drawn from its beginning."""
        state, stream, place = self._state, self._state.stream, restored.stream
        going = stream.go_on(place) if place is not None and restored.ranks == world_size() else None
        rest: Iterator[tuple[Any, str]] = iter(())
        last = None
        if going is not None:
            state.progress.drawn = going.drawn
            apart = drawn_apart(self._share.following(), first=going.generators, going_on=True, note=self._note)
            rest = with_hashes(apart, going.drawn)
            with suppress(DataError, *FAULTS):  # what is wrong with the data, reading it again will tell
                last = next(rest, None)
            going.settle()
        is_same = gather_values(last is not None and last[1] == drawn)
        if last is not None and all(is_same):
            return chain([last], rest)
        if going is not None:
            going.take_back()
            restored.set_to_epoch_start(state.device, state.data)
        why = stream.why_not or (None if place is None else ("notice.stream_other", {}))
        if why is not None:
            self._say(why[0], **why[1])
        state.progress.drawn = ""
        stream.begin()
        return None

    def _note(self, generators: GlobalStates) -> None:
        self._state.stream.note(generators, self._state.progress.drawn)

    def _drawn(self) -> Iterable[Any]:
        """This rank's batches, chosen by the generators of rank 0: every rank then has the same order of data."""
        batches, state = self._share.batches, self._state
        note = self._note if self._keeper is not None else None
        if world_size() == 1:
            return batches if is_read_by_index(batches) else drawn_apart(batches, note=note)
        if self._share.is_divided:
            return drawn_apart(batches, note=note)
        first, loader = from_first((global_states(), state.data.read_own()))
        state.data.set_own(*loader)
        return drawn_apart(batches, first=first if rank() else None, note=note)
