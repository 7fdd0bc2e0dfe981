"""Iterate over an epoch in gradient accumulation windows of collated, checked batches; resume in its middle by replay.

Knows how data is drawn and drawn again; knows nothing of what is learned from it.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from apt_model.config import TrainConfig
from apt_model.data.batch import Batch, to_batch
from apt_model.data.rng import read_generators
from apt_model.distill.checkpoints.manager import Checkpoints, RunState, fingerprint
from apt_model.errors import ConfigError

Window = list[tuple[int, Batch]]  # gradient accumulation window: the numbered batches of one optimizer step


class Walk:
    """Iterates over the data, one pass an epoch.

    Args:
        batches: yields anything that `to_batch` takes.
        check: refuses a batch, still on the CPU, that a model cannot read.
        tokenizer: encodes batches of strings.
        teacher_tokenizer: the teacher's, if it has another one.
        config: batches per step, tokens per row.
        keeper: has the random generators' states of the checkpoint that the run resumes from.
        state: the run as a checkpoint holds it.
    """

    def __init__(
        self,
        batches: Iterable[Any],
        *,
        check: Callable[[Batch], None],
        tokenizer: Any,
        teacher_tokenizer: Any,
        config: TrainConfig,
        keeper: Checkpoints | None,
        state: RunState,
    ) -> None:
        self._batches, self._check, self._tokenizer, self._config = batches, check, tokenizer, config
        self._teacher_tokenizer = teacher_tokenizer
        self._keeper, self._state = keeper, state

    def windows(self) -> Iterator[Window]:
        """The accumulation windows of the current epoch, from the next one to be trained on.

        Raises:
            DataError: a batch cannot be collated, or a model cannot read it.
            ConfigError: on resuming, the data differs from the interrupted run's.
        """
        for holder in (self._batches, getattr(self._batches, "dataset", None)):
            set_epoch = getattr(holder, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(self._state.progress.epoch - 1)
        window: Window = []
        for index, batch in self._numbered():
            self._check(batch)
            window.append((index, batch))
            if len(window) == self._config.gradient_accumulation_steps:
                yield window
                window = []
        if window:
            yield window

    def _numbered(self) -> Iterator[tuple[int, Batch]]:
        """The epoch's batches with their numbers, from the first that was not trained on.

        Those before are drawn again, so that whatever draws random numbers for them (samplers, transforms, workers) is
        in the same state as in the run before it was interrupted.
        """
        keeper, progress, state = self._keeper, self._state.progress, self._state
        done, first_batch = progress.batches, progress.first_batch
        if keeper is not None:
            start = keeper.set_generators("epoch", state) if done else read_generators(state.device, self._batches)
            state.at_epoch_start = start
        index = -1
        for index, raw in enumerate(self._batches):
            if 0 < index < done - 1:
                continue
            batch = to_batch(
                raw,
                tokenizer=self._tokenizer,
                max_length=self._config.max_length,
                teacher_tokenizer=self._teacher_tokenizer,
            )
            if index == 0 and keeper is not None:
                progress.first_batch = fingerprint(batch)
                if done:
                    keeper.refuse_other_data(first_batch, progress.first_batch)
            if index == done - 1 and keeper is not None:
                keeper.set_generators("now", state)
            if index >= done:
                yield index, batch
        if index + 1 < done:
            fix = "give the data that the run was begun with"
            raise ConfigError(
                "the data has fewer batches than before", got=f"{index + 1} batches, {done} were trained on", fix=fix
            )
