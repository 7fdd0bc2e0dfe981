"""The student on data that it does not learn from: losses, agreement, texts.

Looks without touching: eval mode, no gradient, and the random generators are left as they were. Knows nothing of how
the student is trained or of what a lesson makes of the numbers.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from math import isfinite
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel, set_seed
from torch import nn

from apt_model.data.batch import Batch
from apt_model.data.rng import undisturbed
from apt_model.distill.grader import Grader
from apt_model.distill.losses.readout import RowReadout, choose_row, numbers
from apt_model.distill.reporter import Reporter
from apt_model.errors import DataError, NumericError
from apt_model.events.records import TextPair, Validation
from apt_model.models.modes import in_eval_mode

MAX_PAIRS = 16  # rows read as texts in a pass


class Validator:
    """Grades the student on validation data.

    Args:
        batches: a DataLoader or list of anything that `to_batch` takes; gone through once an epoch.
        grader: grades a batch.
        collate: makes a `Batch` of what the data yields.
        given_tokens: tokens before the texts begin.
        device: whose random generators are kept.

    Attributes:
        taken: batches that were taken for cards since the data began anew.

    Raises:
        DataError: data that can be read only once.
    """

    def __init__(
        self,
        batches: Iterable[Any],
        *,
        grader: Grader,
        collate: Callable[[Any], Batch],
        given_tokens: int,
        device: torch.device,
    ) -> None:
        if isinstance(batches, Iterator):
            fix = "pass a DataLoader or a list"
            raise DataError("validation data can be read only once", got=type(batches).__name__, fix=fix)
        self._source, self._collate, self._grader = batches, collate, grader
        self._given_tokens, self._device = given_tokens, device
        self._for_cards: Iterator[Batch] = iter(())
        self.taken = 0

    def check(self) -> Batch:
        """The first batch: what is wrong with it is said before the training and not after an epoch.

        Raises:
            DataError: it cannot be looked at, or there is none.
        """
        with undisturbed(self._device):
            return next(self._batches())

    def card(self, student: nn.Module, *, turn: int) -> tuple[RowReadout, float]:
        """The numbers of a card on a row of the next validation batch, and the batch's loss."""
        with self._looking(student) as module:
            batch = self._next()
            card = choose_row(batch, turn=turn, given_tokens=self._given_tokens)
            assert card is not None  # noqa: S101 - batches without a label were left out
            own, theirs, moved = self._grader.logits(module, batch)
            kd, ce = self._grader.sums(own, theirs, moved)
            (loss,) = numbers([self._grader.weigh(kd, ce) / batch.label_count])
            return theirs.read(card, own, moved), loss

    def skip(self, count: int) -> None:
        """Go on with the cards of a resumed run: as many batches were taken for them."""
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

    def measure(self, student: nn.Module, report: Reporter) -> Validation:
        """One pass over all of it; the texts are of one row of each of the first 16 batches.

        Raises:
            DataError: there is no batch with a label.
            NumericError: the loss on it is not finite.
        """
        sums, tokens = torch.zeros(3, dtype=torch.float64), 0
        pairs: list[TextPair] = []
        with self._looking(student) as module:
            for batch in self._batches():
                own, theirs, moved = self._grader.logits(module, batch)
                kd, ce = self._grader.sums(own, theirs, moved)
                sums += torch.tensor(numbers([kd, ce, theirs.agreed(own, moved)]), dtype=torch.float64)
                tokens += batch.label_count
                card = choose_row(batch, turn=len(pairs), given_tokens=self._given_tokens)
                if card is not None and len(pairs) < MAX_PAIRS:
                    pairs.append(_pair(theirs.read(card, own, moved), report))
        kd, ce, agreement = (sums / tokens).tolist()
        if not (isfinite(kd) and isfinite(ce)):
            fix = "look at the validation data, and at what both models say of it"
            raise NumericError("the loss on the validation data is not finite", got=f"KD {kd}, CE {ce}", fix=fix)
        return Validation(
            loss=self._grader.weigh(kd, ce), kd=kd, ce=ce, agreement=agreement, tokens=tokens, pairs=tuple(pairs)
        )

    def _batches(self) -> Iterator[Batch]:
        found = 0
        for raw in self._source:
            batch = self._collate(raw)
            self._grader.check(batch)
            if batch.label_count:
                found += 1
                yield batch
        if not found:
            raise DataError("validation data has not one label to look at")

    @contextmanager
    def _looking(self, student: nn.Module) -> Iterator[nn.Module]:
        """The student without its wrapper, in eval mode; its modes and the random generators are kept."""
        module = extract_model_from_parallel(student)
        with undisturbed(self._device), in_eval_mode(module):
            yield module


def _pair(readout: RowReadout, report: Reporter) -> TextPair:
    return TextPair(
        teacher_text=report.decode_teacher(readout.teacher_ids),
        student_text=report.decode(readout.student_ids),
        normalised_kl=readout.normalised_kl,
    )
