"""The way through an epoch's data: checked batches, as many at a time as make one optimizer step; also from its middle.

Knows how data is drawn and drawn again; knows nothing of what is learned from it.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from apt_model.data.batch import Batch
from apt_model.data.rng import read_generators
from apt_model.distill.checkpoints.generators import RestoredGenerators
from apt_model.distill.checkpoints.manager import Checkpoints, RunState, fingerprint
from apt_model.errors import ConfigError

Window = list[tuple[int, Batch]]  # numbered batches of one optimizer step


class Walk:
    """Goes through the data once an epoch.

    Args:
        batches: anything that `to_batch` takes.
        collate: makes a `Batch` of what the data yields.
        check: refuses a batch, still on the CPU, that a model cannot take.
        accumulation: batches of one optimizer step.
        keeper: of the run's checkpoints; refuses other data.
        state: the run as a checkpoint holds it.
    """

    def __init__(
        self,
        batches: Iterable[Any],
        *,
        collate: Callable[[Any], Batch],
        check: Callable[[Batch], None],
        accumulation: int,
        keeper: Checkpoints | None,
        state: RunState,
    ) -> None:
        self._batches, self._collate, self._check, self._accumulation = batches, collate, check, accumulation
        self._keeper, self._state = keeper, state

    def windows(self, restored: RestoredGenerators | None) -> Iterator[Window]:
        """The batches of this epoch, from where the run is.

        Args:
            restored: the random generators of the checkpoint that the run goes on from, if it does.
        """
        for holder in (self._batches, getattr(self._batches, "dataset", None)):
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
        """The epoch's batches from where the run is. Those before are drawn once more, so that whatever drew random
        numbers for them (samplers, transforms, workers) stands where it stood."""
        keeper, progress, state = self._keeper, self._state.progress, self._state
        done, first_batch = progress.batches, progress.first_batch
        if restored is not None and done:
            state.at_epoch_start = restored.set_to_epoch_start(state.device, self._batches)
        elif keeper is not None:
            state.at_epoch_start = read_generators(state.device, self._batches)
        index = -1
        for index, raw in enumerate(self._batches):
            if 0 < index < done - 1:
                continue
            batch = self._collate(raw)
            if index == 0 and keeper is not None:
                progress.first_batch = fingerprint(batch)
                if done:
                    keeper.refuse_other_data(first_batch, progress.first_batch)
            if index == done - 1 and restored is not None:
                restored.set_to_save(state.device, self._batches)
            if index >= done:
                yield index, batch
        if index + 1 < done:
            fix = "give the data that the run was begun with"
            raise ConfigError(
                "the data is not what it was", got=f"{index + 1} batches, {done} were learned from", fix=fix
            )
