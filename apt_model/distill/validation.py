"""Validation: KD and CE loss, agreement and texts of the student on held-out data.

Does not influence the training: eval mode, no gradient, random generators restored. Knows nothing of how the student is
trained or how the numbers are judged.
"""

from collections.abc import Callable, Iterable, Iterator
from math import isfinite
from typing import Any, NamedTuple

import torch
from accelerate.utils import set_seed
from torch import nn

from apt_model.data.batch import Batch
from apt_model.data.data_state import restorer
from apt_model.data.rng import undisturbed
from apt_model.data.shares import Share
from apt_model.distill.grader import Grader
from apt_model.distill.losses.readout import RowReadout, choose_row, numbers
from apt_model.distill.out_of_memory import REMEDY
from apt_model.distill.reporter import Reporter
from apt_model.errors import DataError, NumericError
from apt_model.events.results import TextPair, Validation
from apt_model.models.lockstep import Lockstep
from apt_model.models.modes import looking_at
from apt_model.models.out_of_memory import out_of_memory_told
from apt_model.ranks.collective import gather_values, rank, world_size

MAX_PAIRS = 16  # rows whose texts are kept in a pass


class MeasuredBatch(NamedTuple):
    """A batch of validation data: its number, the sums over its labels, their count, and the texts of a row."""

    number: int
    sums: list[float]
    tokens: int
    pair: TextPair | None


class Validator:
    """Computes losses and cards of the student on validation data.

    Args:
        batches: a DataLoader or list of anything that `to_batch` takes; read once an epoch.
        grader: computes losses and texts of a batch.
        collate: makes a `Batch` of what the data yields.
        given_tokens: length of the prompt before the texts on a card.
        bos: the start token, which is none of them.
        device: its random generators are restored.
        lockstep: for sharded models, of which each rank measures another number of batches.

    Attributes:
        first: the first batch with a label; read at once, so that bad data is refused before training.
        taken: batches taken for cards in the current pass over the data.

    Raises:
        DataError: data that can be read only once, a first batch that a model cannot read, or no batch with a label.
    """

    def __init__(
        self,
        batches: Iterable[Any],
        *,
        grader: Grader,
        collate: Callable[[Any], Batch],
        given_tokens: int,
        bos: int | None = None,
        device: torch.device,
        lockstep: Lockstep,
    ) -> None:
        self._lockstep = lockstep
        if isinstance(batches, Iterator):
            fix = "pass a DataLoader or a list"
            raise DataError("validation data can be read only once", got=type(batches).__name__, fix=fix)
        self._source, self._collate, self._grader = batches, collate, grader
        self._given_tokens, self._bos, self._device = given_tokens, bos, device
        self._for_cards: Iterator[Batch] = iter(())
        self._from_the_start = restorer(batches)  # each pass has the same order, also in a resumed run
        self.taken = 0
        with undisturbed(device):
            self.first = next(self._batches())

    @out_of_memory_told("reading a card from the validation data", REMEDY)
    def card(self, student: nn.Module, *, turn: int) -> tuple[RowReadout, float]:
        """A row of the next validation batch, read from both models, and the batch's loss."""
        with looking_at(student, self._device) as module:
            batch = self._next()
            card = choose_row(batch, turn=turn, given_tokens=self._given_tokens, bos=self._bos)
            assert card is not None  # noqa: S101 - batches without a label were left out
            own, theirs, moved = self._grader.logits(module, batch)
            kd, ce = self._grader.sums(own, theirs, moved)
            (loss,) = numbers([self._grader.weigh(kd, ce) / batch.label_count])
            return self._grader.read(card, own, theirs, moved), loss

    def skip(self, count: int) -> None:
        """Skip the batches that were taken for cards before the run was resumed."""
        with undisturbed(self._device):
            for _ in range(count):
                self._next()

    def _next(self) -> Batch:
        batch = next(self._for_cards, None)
        if batch is None:
            set_seed(0)  # undone by `undisturbed`: a loader that shuffles has the same order in a resumed run
            self._for_cards, self.taken = self._batches(), 0
            batch = next(self._for_cards)
        self.taken += 1
        return batch

    @out_of_memory_told("the validation", REMEDY)
    def measure(self, student: nn.Module, report: Reporter) -> Validation:
        """Losses and agreement over all validation data, and the texts of one row of each of the first 16 batches.

        Each rank measures its share of the batches; the sums are added up in the order of the data on every rank.

        Raises:
            DataError: there is no batch with a label.
            NumericError: the loss on it is not finite.
        """
        measured: list[MeasuredBatch] = []
        share = Share(self._source, rank(), world_size())
        with self._lockstep(), looking_at(student, self._device) as module:
            for index, batch in enumerate(self._collated(share.batches)):
                if batch.label_count:
                    measured.append(self._measured(module, batch, share.number(index), report))
        together = sorted(one for some in gather_values(measured) for one in some)
        if not together:
            raise _nothing_to_learn()
        sums = sum(torch.tensor(one.sums, dtype=torch.float64) for one in together)
        tokens = sum(one.tokens for one in together)
        pairs = [one.pair for one in together if one.pair is not None]
        kd, ce, agreement = (torch.as_tensor(sums) / tokens).tolist()
        if not (isfinite(kd) and isfinite(ce)):
            fix = "check the validation data, and both models' logits on it"
            raise NumericError("the loss on the validation data is not finite", got=f"KD {kd}, CE {ce}", fix=fix)
        return Validation(
            loss=self._grader.weigh(kd, ce), kd=kd, ce=ce, agreement=agreement, tokens=tokens, pairs=tuple(pairs)
        )

    def _measured(self, module: nn.Module, batch: Batch, number: int, report: Reporter) -> MeasuredBatch:
        """One batch's sums, and for one of the first the texts of a row."""
        own, theirs, moved = self._grader.logits(module, batch)
        kd, ce = self._grader.sums(own, theirs, moved)
        sums = numbers([kd, ce, theirs.agreed(own, moved)])
        card = choose_row(batch, turn=number, given_tokens=self._given_tokens, bos=self._bos)
        pair = _pair(theirs.read(card, own, moved), report) if card is not None and number < MAX_PAIRS else None
        return MeasuredBatch(number, sums, batch.label_count, pair)

    def _batches(self) -> Iterator[Batch]:
        found = 0
        for batch in self._collated(self._source):
            if batch.label_count:
                found += 1
                yield batch
        if not found:
            raise _nothing_to_learn()

    def _collated(self, source: Iterable[Any]) -> Iterator[Batch]:
        self._from_the_start()
        for raw in source:
            batch = self._collate(raw)
            self._grader.check(batch)
            yield batch


def _nothing_to_learn() -> DataError:
    return DataError("no token of the validation data has a label", fix="give rows with labels")


def _pair(readout: RowReadout, report: Reporter) -> TextPair:
    return TextPair(
        teacher_text=report.decode_teacher(readout.teacher_ids),
        student_text=report.decode(readout.student_ids),
        normalised_kl=readout.normalised_kl,
    )
