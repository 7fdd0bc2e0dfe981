"""Choose the batches and rows that become cards, and emit the cards as events.

Knows when a card is due, where its row comes from and which texts it shows; knows nothing of how the student is trained
or a card looks.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import nn

from apt_model.config.sections import DisplayConfig
from apt_model.data.batch import Batch
from apt_model.distill.continuations import Continuations, Continued
from apt_model.distill.losses.readout import CardRow, RowReadout, choose_row
from apt_model.distill.reporter import Reporter
from apt_model.distill.validation import Validator
from apt_model.events.cards import Source
from apt_model.events.sinks import Guard
from apt_model.models.modes import has_dropout
from apt_model.ranks.collective import world_size
from apt_model.ranks.group import ranks

RARE = 10  # batches from card to card, at least, for `card_text=auto` to let the models go on by themselves
FEW = 20  # cards of a run, at most, for short epochs not to matter, each of which begins with a card


class DueCard(NamedTuple):
    """A card to be shown: the number of its batch, its row as it was read, and the loss it shows."""

    batch: int
    readout: RowReadout
    loss: float
    source: Source


class Cards:
    """A card every `sample_frequency` batches, from the batch itself or from validation data.

    Args:
        report: emits the events.
        display: how often, from which data, and which texts.
        validator: reads cards from the validation data; None without any.
        continuations: lets both models go on by themselves.
        guard: isolates and reports a failure of that; the cards show predictions from then on.
        read_alone: reads a row of a batch again, in eval mode.
        batches: of an epoch, each of which begins with a card, and of the run; None if unknown.
        wanted: False: there are no cards.
    """

    def __init__(
        self,
        report: Reporter,
        display: DisplayConfig,
        validator: Validator | None,
        *,
        continuations: Continuations,
        guard: Guard,
        read_alone: Callable[[nn.Module, Batch, RowReadout], RowReadout],
        batches: tuple[int, int] | None,
        wanted: bool,
    ) -> None:
        self._report, self._display, self._validator = report, display, validator
        self._continuations, self._guard, self._wanted = continuations, guard, wanted and report.speaks
        self._ranks = world_size()  # one shows the cards that are due at the batches of all
        self._read_alone = read_alone
        self._goes_on = display.card_text == "continued" or (
            display.card_text == "auto" and _are_rare(display, batches)
        )
        self._bos = getattr(continuations.tokenizer, "bos_token_id", None)

    def choose(self, window: Sequence[tuple[int, Batch]], *, epoch: int) -> list[CardRow | None]:
        """The row to read from each numbered batch of a step; None if no card is due, or it shows a validation row."""
        given_tokens, from_batches = self._display.given_tokens, self._display.show_on == "train"
        return [
            choose_row(batch, turn=self._turn(index, epoch), given_tokens=given_tokens, bos=self._bos)
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
        ranks().at("exam")
        due = []
        for (index, batch), readout in zip(window, readouts, strict=True):
            if readout is not None:
                due.append(DueCard(index, self._reread(student, batch, readout), loss, "train"))
            elif self._validator is not None and self._display.show_on == "validation" and self._is_due(index):
                due.append(DueCard(index, *self._validator.card(student, turn=self._turn(index, epoch)), "validation"))
        for card, continued in zip(due, self._continued(student, due), strict=True):
            self._report.observe(
                card.readout, batch=card.batch, epoch=epoch, loss=card.loss, source=card.source, continued=continued
            )

    def _reread(self, student: nn.Module, batch: Batch, readout: RowReadout) -> RowReadout:
        """A row that was read with dropout, read again without: that noise is none of the student's errors."""
        if batch.teachers is not None or not has_dropout(student):
            return readout
        again: RowReadout | None = self._guard.run("cards", lambda: self._read_alone(student, batch, readout), None)
        return readout if again is None else again

    def _continued(self, student: nn.Module, due: Sequence[DueCard]) -> Sequence[Continued | None]:
        """What both models say after each card's beginning; None for a card that shows predictions."""
        predicted = [None] * len(due)
        if not due or not self._goes_on:
            return predicted
        hindrance = self._continuations.hindrance(student)
        if hindrance is not None:
            self._goes_on = False
            if self._display.card_text == "continued":
                self._report.say(hindrance[0], **hindrance[1])
            return predicted
        rows, most = [card.readout.card for card in due], self._display.exam_tokens
        said = self._guard.run("cards", lambda: self._continuations.of_cards(student, rows, most=most), None)
        self._goes_on = said is not None
        return predicted if said is None else said

    def _is_due(self, index: int) -> bool:
        """Whether a card is due at a batch, or at one of those that the other ranks learn from at the same time."""
        last, every = index + self._ranks - 1, self._display.sample_frequency
        return self._wanted and last // every > (index - 1) // every

    def _turn(self, index: int, epoch: int) -> int:
        """The number that chooses the row of a batch: one more at each card and each epoch."""
        return (epoch - 1) + (index + self._ranks - 1) // self._display.sample_frequency


def _are_rare(display: DisplayConfig, batches: tuple[int, int] | None) -> bool:
    """Whether continuations cost little beside the training, for `batches` of an epoch and of the run."""
    if display.sample_frequency < RARE:
        return False
    if batches is None or not batches[0]:
        return True
    cards = math.ceil(batches[1] / min(display.sample_frequency, batches[0]))
    return cards <= FEW or batches[1] >= RARE * cards
