"""Choose the batches and rows that become cards, and emit the cards as events.

Knows when a card is due and where its row comes from; knows nothing of how the student is trained or a card looks.
"""

from collections.abc import Sequence

from torch import nn

from apt_model.config.sections import DisplayConfig
from apt_model.data.batch import Batch
from apt_model.distill.losses.readout import CardRow, RowReadout, choose_row
from apt_model.distill.reporter import Reporter
from apt_model.distill.validation import Validator


class Cards:
    """A card every `sample_frequency` batches, from the batch itself or from validation data.

    Args:
        report: emits the events.
        display: how often, and from which data.
        validator: reads cards from the validation data; None without any.
        wanted: False: there are no cards.
    """

    def __init__(self, report: Reporter, display: DisplayConfig, validator: Validator | None, *, wanted: bool) -> None:
        self._report, self._display, self._validator = report, display, validator
        self._wanted = wanted and report.speaks

    def choose(self, window: Sequence[tuple[int, Batch]], *, epoch: int) -> list[CardRow | None]:
        """The row to read from each numbered batch of a step; None if no card is due, or it shows a validation row."""
        given_tokens, from_batches = self._display.given_tokens, self._display.show_on == "train"
        return [
            choose_row(batch, turn=self._turn(index, epoch), given_tokens=given_tokens)
            if from_batches and self._is_due(index)
            else None
            for index, batch in window
        ]

    def show(
        self,
        window: Sequence[tuple[int, Batch]],
        readouts: Sequence[RowReadout | None],
        *,
        student: nn.Module,
        epoch: int,
        loss: float,
    ) -> None:
        """Emit the cards that were read during a step, or read them now from validation data."""
        for (index, _), readout in zip(window, readouts, strict=True):
            if readout is not None:
                self._report.observe(readout, batch=index, epoch=epoch, loss=loss)
            elif self._validator is not None and self._display.show_on == "validation" and self._is_due(index):
                read, its_loss = self._validator.card(student, turn=self._turn(index, epoch))
                self._report.observe(read, batch=index, epoch=epoch, loss=its_loss, source="validation")

    def _is_due(self, index: int) -> bool:
        return self._wanted and index % self._display.sample_frequency == 0

    def _turn(self, index: int, epoch: int) -> int:
        """The number that chooses the row of a batch: one more at each card and each epoch."""
        return (epoch - 1) + index // self._display.sample_frequency
